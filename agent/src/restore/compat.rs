//! Which server can take which backup.

use super::RestoreError;
use crate::backup::tool::series;

/// Refuses a logical backup that a server cannot take: of another flavour, for dialects differ, or of a
/// newer release series, whose dump may use what the server does not know yet.
///
/// # Errors
/// [`RestoreError::Incompatible`], with what to do.
pub fn logical(
    backup_flavour: &str,
    backup_version: &str,
    server_flavour: &str,
    server_version: &str,
) -> Result<(), RestoreError> {
    if backup_flavour != server_flavour {
        return Err(RestoreError::Incompatible(format!(
            "the backup is of {backup_flavour} {backup_version}, and the server is {server_flavour} {server_version}: \
             a dump of one does not load into the other, so restore into a {backup_flavour} server"
        )));
    }
    match (series(backup_version), series(server_version)) {
        (Some(backup), Some(server)) if server < backup => {
            Err(RestoreError::Incompatible(format!(
                "the backup is of {backup_flavour} {backup_version}, and the server is {server_version}, which is older: \
                 restore into a server of series {}.{} or later",
                backup.0, backup.1
            )))
        }
        (Some(_), Some(_)) => Ok(()),
        _ => Err(RestoreError::Incompatible(format!(
            "the versions {backup_version:?} of the backup and {server_version:?} of the server cannot be compared"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavour_and_series() {
        let fits = |backup: (&str, &str), server: (&str, &str)| {
            logical(backup.0, backup.1, server.0, server.1).map_err(|error| error.to_string())
        };
        let mariadb = ("mariadb", "10.11.19-MariaDB-0+deb12u1-log");
        assert_eq!(fits(mariadb, mariadb), Ok(()));
        assert_eq!(fits(mariadb, ("mariadb", "10.11.2-MariaDB")), Ok(()));
        assert_eq!(fits(mariadb, ("mariadb", "11.4.2-MariaDB")), Ok(()));
        assert_eq!(fits(("mysql", "8.4.3"), ("mysql", "9.7.4")), Ok(()));
        for (backup, server, words) in [
            (mariadb, ("mariadb", "10.6.1-MariaDB"), "10.11 or later"),
            (("mysql", "9.1.0"), ("mysql", "8.4.3"), "9.1 or later"),
            (mariadb, ("mysql", "9.1.0"), "into a mariadb server"),
            (("mysql", "9.1.0"), mariadb, "into a mysql server"),
            (("mysql", "?"), ("mysql", "9.1.0"), "cannot be compared"),
        ] {
            let error = fits(backup, server).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
