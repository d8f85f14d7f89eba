//! Accounts, as members of their own after the data: a dump tool leaves them out.

use super::gate::Gate;
use super::pipeline::{self, Piece};
use super::run::Run;
use super::slot::Stop;
use crate::archive::{Summary, Users};
use crate::database::DatabaseError;
use crate::protocol::StreamReason;
use tokio::sync::mpsc::UnboundedSender;

impl Run {
    /// Adds the accounts where they belong into this backup.
    pub(super) async fn add_users(
        &self,
        mut summary: Summary,
        queue: &UnboundedSender<Piece>,
        gate: &Gate,
    ) -> Result<Summary, Stop> {
        if self.plan.users {
            let accounts = tokio::select! {
                stop = self.stopped() => Err(stop),
                accounts = self.users(queue, gate) => accounts,
            }?;
            summary.users = Some(Users {
                accounts,
                ..Users::default()
            });
        }
        Ok(summary)
    }

    async fn users(&self, queue: &UnboundedSender<Piece>, gate: &Gate) -> Result<u64, Stop> {
        let lost = |error: DatabaseError| {
            Stop::new(
                StreamReason::DatabaseLost,
                format!("the accounts cannot be read after the dump: {error}"),
            )
        };
        let mut session = self.config.database.connect().await.map_err(lost)?;
        let flavour = self.plan.server.flavour;
        let mut accounts = session.accounts(flavour).await.map_err(lost)?;
        while let Some(sql) = accounts.next().await.map_err(lost)? {
            pipeline::take(gate, sql.len()).await;
            if queue.send(Piece::Users(sql.into())).is_err() {
                return Err(Stop::new(
                    StreamReason::Internal,
                    "the archive could not be written",
                ));
            }
        }
        let count = accounts.count();
        session.close().await;
        Ok(count)
    }
}
