//! A logical backup into a running server, through its agent.

use super::{
    AGENT_SECRET_DIR, Plan, Report,
    run::{Failed, Pod, Stop, find},
};
use crate::{
    agent_client::{Endpoint, RestoreFailure, Tls},
    logical_restore,
    reason::RestoreReason,
};
use std::{fs, io, path::Path};
use towline_agent::restore::{LogicalOptions, Progress};

pub(super) async fn restore(
    pod: &Pod,
    plan: &Plan,
    (url, server_name, options): (&str, Option<&str>, &LogicalOptions),
    progress: &Progress,
    mut stop: Stop<'_>,
    report: &mut Report,
) -> Result<(), Failed> {
    let agent = endpoint(&pod.path(AGENT_SECRET_DIR), url, server_name)?;
    let backup = find(pod, plan, &mut stop).await?;
    report.bytes = backup.manifest.bytes;
    match logical_restore::through_agent(&backup, &agent, options, progress, stop).await {
        Ok(restored) => {
            report.target_written = true;
            report.tables = restored.tables;
            report.position = restored.summary.position;
            Ok(())
        }
        Err(RestoreFailure {
            reason,
            message,
            written,
        }) => {
            report.target_written = written;
            Err(Failed::new(reason, message))
        }
    }
}

/// The agent, with what is mounted of its Secrets.
fn endpoint(folder: &Path, url: &str, server_name: Option<&str>) -> Result<Endpoint, Failed> {
    let invalid = |why: String| Failed::new(RestoreReason::InvalidSpec, why);
    let file = |name: &str| match fs::read(folder.join(name)) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failed::new(
            RestoreReason::PodFailed,
            format!("the agent's Secret cannot be read: {name}: {error}"),
        )),
    };
    let base: url::Url = url
        .parse()
        .map_err(|error| invalid(format!("the agent's URL {url:?}: {error}")))?;
    let token = file("token")?
        .map(|token| String::from_utf8_lossy(&token).trim().to_owned())
        .filter(|token| !token.is_empty());
    let tls = if base.scheme() == "https" {
        let (ca, certificate, key) = (file("ca.crt")?, file("tls.crt")?, file("tls.key")?);
        let client = certificate.as_deref().zip(key.as_deref());
        let tls = Tls::new(ca.as_deref(), client, server_name);
        Some(tls.map_err(|error| invalid(format!("the agent's certificates: {error}")))?)
    } else {
        None
    };
    Ok(Endpoint {
        base,
        token,
        tls,
        // What the spec names was checked when the restore was admitted; nothing listens in this pod but
        // its progress.
        allow_local_addresses: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let open = |url| endpoint(folder.path(), url, None);
        let plain = open("http://db:8474").unwrap();
        assert!(plain.token.is_none() && plain.tls.is_none());
        fs::write(folder.path().join("token"), "t-1\n").unwrap();
        assert_eq!(
            open("http://db:8474").unwrap().token.as_deref(),
            Some("t-1")
        );
        assert_eq!(open("db").unwrap_err().reason, RestoreReason::InvalidSpec);
        fs::write(folder.path().join("ca.crt"), "no certificate").unwrap();
        let refused = open("https://db:8474").unwrap_err();
        assert_eq!(refused.reason, RestoreReason::InvalidSpec);
    }
}
