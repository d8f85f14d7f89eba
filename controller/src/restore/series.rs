//! Which tools a backup is restored with: those of the series of the server that made it.

/// Name of a server's series, as `--tool-images` has it: `mariadb-10.11`, `mysql-8.0`, `mysql-8.4`; from
/// MySQL 9 on its major version alone, for its quarterly releases are one line. `None`: not a version.
#[must_use]
pub fn of(flavour: &str, version: &str) -> Option<String> {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    match flavour {
        "mariadb" => Some(format!("mariadb-{major}.{minor}")),
        "mysql" if major >= 9 => Some(format!("mysql-{major}")),
        "mysql" => Some(format!("mysql-{major}.{minor}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series() {
        for (flavour, version, series) in [
            (
                "mariadb",
                "10.11.14-MariaDB-0+deb12u2-log",
                Some("mariadb-10.11"),
            ),
            ("mariadb", "11.4.2", Some("mariadb-11.4")),
            ("mysql", "8.0.36", Some("mysql-8.0")),
            ("mysql", "8.4.1-commercial", Some("mysql-8.4")),
            ("mysql", "9.7.0", Some("mysql-9")),
            ("mysql", "9", None),
            ("postgres", "16.1", None),
            ("mysql", "", None),
        ] {
            assert_eq!(
                of(flavour, version).as_deref(),
                series,
                "{flavour} {version}"
            );
        }
    }
}
