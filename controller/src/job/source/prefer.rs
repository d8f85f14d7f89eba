//! Which of several servers is backed up, by what their agents say of them.

use crate::{
    api::job::Prefer,
    peer_text::{Keep, clean},
};
use std::net::IpAddr;
use towline_agent::protocol::info::{Info, Server};

/// A ready pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) pod: String,
    pub(super) address: IpAddr,
}

/// The one that was chosen, and why each of the others was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// With its server's role.
    pub(super) chosen: Option<(Candidate, String)>,
    /// `db-0 is the primary`.
    pub(super) passed_over: Vec<String>,
}

/// How well a server fits, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Good,
    /// It fits, but is making another backup.
    Busy,
    /// For want of a better one.
    Second,
    SecondAndBusy,
}

/// Chooses among pods, which come in the order in which they are taken when they fit alike. `job_uid`
/// is ours: a backup that runs for us is no obstacle, for it gives way.
pub(super) fn choose(
    prefer: Prefer,
    max_lag: Option<u32>,
    job_uid: &str,
    asked: Vec<(Candidate, Result<Info, String>)>,
) -> Choice {
    let mut fitting = Vec::new();
    let mut passed_over = Vec::new();
    for (candidate, info) in asked {
        match judge(prefer, max_lag, job_uid, info) {
            Ok((fit, role)) => fitting.push((fit, candidate, role)),
            Err(why) => passed_over.push(format!("{} {why}", candidate.pod)),
        }
    }
    // Stable: the order of those that fit alike stays.
    fitting.sort_by_key(|(fit, ..)| *fit);
    let mut fitting = fitting.into_iter();
    let chosen = fitting.next();
    for (fit, candidate, role) in fitting {
        let why = match (fit, &chosen) {
            (Fit::Busy | Fit::SecondAndBusy, Some((Fit::Good | Fit::Second, ..))) => {
                "is making another backup".to_owned()
            }
            (Fit::Second | Fit::SecondAndBusy, Some((Fit::Good | Fit::Busy, ..))) => {
                format!("is the {role}")
            }
            _ => format!("is a {role} too, and comes later by name"),
        };
        passed_over.push(format!("{} {why}", candidate.pod));
    }
    Choice {
        chosen: chosen.map(|(_, candidate, role)| (candidate, role)),
        passed_over,
    }
}

fn judge(
    prefer: Prefer,
    max_lag: Option<u32>,
    job_uid: &str,
    info: Result<Info, String>,
) -> Result<(Fit, String), String> {
    let info = info.map_err(|why| format!("did not say what it is: {why}"))?;
    let Some(server) = &info.database else {
        let why = info.database_error.as_deref().unwrap_or("no reason given");
        return Err(format!(
            "does not reach its database: {}",
            clean(why, None, Keep::Start)
        ));
    };
    let second = match (prefer, server.role.as_str()) {
        (Prefer::Any, _) | (Prefer::Primary, "primary") => false,
        (Prefer::Primary, "replica") => return Err("is a replica".to_owned()),
        (Prefer::Replica | Prefer::PreferReplica, "replica") => {
            replicates(server, max_lag)?;
            false
        }
        (Prefer::Replica, "primary") => return Err("is the primary".to_owned()),
        (Prefer::PreferReplica, "primary") => true,
        (_, _) => {
            return Err(
                "does not tell its role: grant its agent's user REPLICA MONITOR or REPLICATION CLIENT (see deploy/grants)"
                    .to_owned(),
            );
        }
    };
    let busy = info
        .running
        .as_ref()
        .is_some_and(|running| running.job.as_ref().is_none_or(|job| job.uid != job_uid));
    let fit = match (second, busy) {
        (false, false) => Fit::Good,
        (false, true) => Fit::Busy,
        (true, false) => Fit::Second,
        (true, true) => Fit::SecondAndBusy,
    };
    Ok((fit, clean(&server.role, None, Keep::Start)))
}

/// Whether what a replica has is what its source had not long ago.
fn replicates(server: &Server, max_lag: Option<u32>) -> Result<(), String> {
    if let Some(error) = server.replication.iter().find_map(|r| r.error) {
        return Err(format!("is a replica that error {error} has stopped"));
    }
    let Some(max) = max_lag else {
        return Ok(());
    };
    match server.replica_lag_seconds {
        Some(lag) if lag <= u64::from(max) => Ok(()),
        Some(lag) => Err(format!(
            "is a replica {lag} s behind, more than maxReplicaLagSeconds ({max})"
        )),
        None => Err(
            "is a replica that is not replicating, so nobody knows how far it is behind".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replica(lag: Option<u64>) -> serde_json::Value {
        json!({"database": {"role": "replica", "replicaLagSeconds": lag}})
    }

    fn primary() -> serde_json::Value {
        json!({"database": {"role": "primary"}})
    }

    fn choose_of(prefer: Prefer, max_lag: Option<u32>, infos: &[serde_json::Value]) -> Choice {
        let asked = infos.iter().enumerate().map(|(n, info)| {
            let candidate = Candidate {
                pod: format!("db-{n}"),
                address: IpAddr::from([10, 0, 0, n as u8]),
            };
            let info = match info {
                serde_json::Value::String(error) => Err(error.clone()),
                info => Ok(serde_json::from_value(info.clone()).unwrap()),
            };
            (candidate, info)
        });
        choose(prefer, max_lag, "ours", asked.collect())
    }

    #[test]
    fn the_role_decides() {
        use Prefer::{PreferReplica, Primary, Replica};
        let busy = |info: &serde_json::Value, uid: &str| {
            let mut info = info.clone();
            info["running"] = json!({"id": "r", "job": {"uid": uid, "attempt": 1}});
            info
        };
        let stopped = json!({"database": {"role": "replica", "replication": [{"error": 1062}]}});
        let down = json!({"databaseError": "refused"});
        let unknown = json!({"database": {"role": "unknown"}});
        let (p, r, late) = (primary(), replica(Some(0)), replica(Some(90)));
        for (what, prefer, lag, infos, chosen) in [
            (
                "the primary",
                Primary,
                None,
                vec![r.clone(), p.clone()],
                Some(1),
            ),
            ("no primary", Primary, None, vec![r.clone()], None),
            (
                "a replica",
                Replica,
                None,
                vec![p.clone(), r.clone()],
                Some(1),
            ),
            ("no replica", Replica, None, vec![p.clone()], None),
            (
                "the first by name",
                Replica,
                None,
                vec![r.clone(), r.clone()],
                Some(0),
            ),
            (
                "lag does not matter",
                Replica,
                None,
                vec![late.clone()],
                Some(0),
            ),
            (
                "lag matters",
                Replica,
                Some(60),
                vec![late.clone(), r.clone()],
                Some(1),
            ),
            (
                "just in time",
                Replica,
                Some(90),
                vec![late.clone()],
                Some(0),
            ),
            (
                "all are late",
                Replica,
                Some(60),
                vec![late.clone(), p.clone()],
                None,
            ),
            ("lag unknown", Replica, Some(60), vec![replica(None)], None),
            (
                "stopped on purpose",
                Replica,
                None,
                vec![replica(None)],
                Some(0),
            ),
            (
                "stopped by an error",
                Replica,
                None,
                vec![stopped.clone()],
                None,
            ),
            (
                "better a replica",
                PreferReplica,
                None,
                vec![p.clone(), r.clone()],
                Some(1),
            ),
            (
                "else the primary",
                PreferReplica,
                Some(60),
                vec![late.clone(), p.clone()],
                Some(1),
            ),
            (
                "a busy replica waits",
                PreferReplica,
                None,
                vec![p.clone(), busy(&r, "theirs")],
                Some(1),
            ),
            (
                "not the busy one",
                Replica,
                None,
                vec![busy(&r, "theirs"), r.clone()],
                Some(1),
            ),
            (
                "busy for us",
                Replica,
                None,
                vec![busy(&r, "ours"), r.clone()],
                Some(0),
            ),
            (
                "its database is down",
                Replica,
                None,
                vec![down.clone(), r.clone()],
                Some(1),
            ),
            (
                "no answer",
                Replica,
                None,
                vec![json!("refused"), r.clone()],
                Some(1),
            ),
            (
                "role unknown",
                PreferReplica,
                None,
                vec![unknown.clone()],
                None,
            ),
        ] {
            let choice = choose_of(prefer, lag, &infos);
            let index = choice
                .chosen
                .as_ref()
                .map(|(c, _)| c.pod.trim_start_matches("db-").parse::<usize>().unwrap());
            assert_eq!(index, chosen, "{what}: {choice:?}");
            let others = infos.len() - usize::from(chosen.is_some());
            assert_eq!(choice.passed_over.len(), others, "{what}: {choice:?}");
        }
    }

    #[test]
    fn it_is_said_why() {
        let p = primary();
        for (prefer, info, why) in [
            (Prefer::Replica, p.clone(), "db-0 is the primary"),
            (Prefer::Primary, replica(None), "db-0 is a replica"),
            (
                Prefer::Replica,
                replica(Some(90)),
                "db-0 is a replica 90 s behind, more than maxReplicaLagSeconds (60)",
            ),
            (
                Prefer::Replica,
                json!("no answer"),
                "db-0 did not say what it is: no answer",
            ),
            (
                Prefer::Replica,
                json!({"databaseError": "a\nb"}),
                "db-0 does not reach its database: a b",
            ),
        ] {
            let choice = choose_of(
                prefer,
                Some(60).filter(|_| prefer == Prefer::Replica),
                &[info],
            );
            assert_eq!(choice.passed_over, [why]);
        }
        let choice = choose_of(
            Prefer::PreferReplica,
            None,
            &[p, replica(None), replica(None)],
        );
        assert_eq!(
            choice.passed_over,
            [
                "db-2 is a replica too, and comes later by name",
                "db-0 is the primary"
            ]
        );
    }
}
