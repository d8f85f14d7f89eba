//! A model of the attempts at one job, checked exhaustively: two controllers that both think they
//! are in charge, crashes between any two steps, requests that arrive after their sender has died,
//! replies that are lost, a user who cancels or deletes, a sweep at any moment. Whatever happens, there is
//! one outcome.
//!
//! The steps are those of `transfer.rs`, `catalog.rs`, `job/act.rs` and `job/decide.rs`; each one that
//! reaches the API server or the store is a step of its own. A write to the job needs the job as it
//! was seen (its resourceVersion).

// Helpers outside #[test] functions are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod steps;
mod world;

use stateright::{Checker as _, HasDiscoveries, Model, Property};
use std::collections::BTreeSet;
use world::{
    ATTEMPTS, Action, CONTROLLERS, Folder, Job, Luck, Manifest, Phase, Protocol, Step, Upload,
    Without, Work, World,
};

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            job: Job {
                attempt: 0,
                open: false,
                complete_tried: false,
                ending: false,
                phase: Phase::Running,
            },
            cancelled: false,
            manifest: None,
            folders: [Folder::default(); ATTEMPTS],
            controllers: [Work::Idle; CONTROLLERS],
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (n, work) in world.controllers.iter().enumerate() {
            if *work == Work::Idle {
                actions.push(Action::Look(n));
                actions.push(Action::Sweep(n));
                continue;
            }
            for luck in [Luck::Good, Luck::ReplyLost, Luck::Bad] {
                actions.push(Action::Do(n, luck));
            }
            for request_lives in [false, true] {
                actions.push(Action::Crash {
                    controller: n,
                    request_lives,
                });
            }
        }
        if !world.cancelled {
            actions.push(Action::Cancel);
        }
        actions.push(Action::Delete);
        for attempt in 1..=ATTEMPTS {
            actions.push(Action::Arrive(attempt));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Look(n) => {
                if world.job.phase != Phase::Running {
                    return None;
                }
                world.controllers[n] = Work::Planning(world.job);
            }
            Action::Do(n, luck) => {
                let work = world.controllers[n];
                world.controllers[n] = self.work(&mut world, work, luck)?;
            }
            Action::Crash {
                controller,
                request_lives,
            } => {
                match (world.controllers[controller], request_lives) {
                    (_, false) => {}
                    (Work::Transfer(attempt, Step::Complete), true) => {
                        world.folder(attempt).complete_under_way = true;
                    }
                    (Work::Transfer(attempt, Step::PutManifest), true) => {
                        world.folder(attempt).manifest_under_way = true;
                    }
                    (_, true) => return None,
                }
                world.controllers[controller] = Work::Idle;
            }
            Action::Cancel => world.cancelled = true,
            Action::Delete => world.job.phase = Phase::Gone,
            // The real one waits for a day besides: here it comes at the worst moment.
            Action::Sweep(n) => {
                let left = world.folders.iter().any(|folder| folder.mark);
                if world.job.phase == Phase::Running || !left {
                    return None;
                }
                world.controllers[n] = Work::SweepDecide;
            }
            Action::Arrive(attempt) => {
                let folder = world.folder(attempt);
                if folder.complete_under_way {
                    folder.complete_under_way = false;
                    world.complete(attempt);
                } else if folder.manifest_under_way {
                    folder.manifest_under_way = false;
                    world.create_manifest(Manifest::Complete(attempt), self.0);
                }
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "a manifest names what is there",
                |_, world: &World| match world.manifest {
                    Some(Manifest::Complete(won)) => world.there(won),
                    _ => true,
                },
            ),
            Property::always("what succeeded stands", |_, world: &World| {
                match world.job.phase {
                    Phase::Succeeded(won) => world.manifest == Some(Manifest::Complete(won)),
                    _ => true,
                }
            }),
            Property::always("what failed has no backup", |_, world: &World| {
                world.job.phase != Phase::Failed
                    || !matches!(world.manifest, Some(Manifest::Complete(_)))
            }),
            Property::always("an attempt has one transfer", |_, world: &World| {
                let running = world.controllers.map(|work| match work {
                    Work::Transfer(attempt, _) => attempt,
                    _ => 0,
                });
                running[0] == 0 || running[0] != running[1]
            }),
            // That the model does something at all.
            Property::sometimes("the second attempt wins", |_, world: &World| {
                world.job.phase == Phase::Succeeded(2)
            }),
            Property::sometimes("a zombie wins over its successor", |_, world: &World| {
                world.job.attempt == 2 && world.job.phase == Phase::Succeeded(1)
            }),
            Property::sometimes("a failed job leaves nothing", |_, world: &World| {
                let clean = |folder: &Folder| !folder.mark && folder.upload != Upload::Completed;
                world.job.phase == Phase::Failed
                    && world.job.attempt == 2
                    && world.folders.iter().all(clean)
            }),
            Property::sometimes("a zombie's late object is swept", |_, world: &World| {
                world.job.phase == Phase::Gone
                    && world.manifest == Some(Manifest::Abandoned)
                    && world
                        .folders
                        .iter()
                        .any(|f| f.upload == Upload::Deleted && !f.mark)
            }),
            Property::sometimes(
                "a zombie succeeds though its job is gone",
                |_, world: &World| {
                    world.job.phase == Phase::Gone
                        && matches!(world.manifest, Some(Manifest::Complete(_)))
                },
            ),
            Property::sometimes("a late manifest meets Abandoned", |_, world: &World| {
                world.manifest == Some(Manifest::Abandoned)
                    && world.folders.iter().any(|f| f.manifest_under_way)
            }),
        ]
    }
}

#[test]
fn there_is_one_outcome() {
    let checker = Protocol(Without::Nothing)
        .checker()
        .threads(2)
        .spawn_bfs()
        .join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn each_rule_is_needed() {
    for (without, broken) in [
        (Without::Abandon, "what failed has no backup"),
        (Without::CreateOnly, "what succeeded stands"),
        (Without::LeavingUndecided, "a manifest names what is there"),
        (Without::ResourceVersion, "an attempt has one transfer"),
        (Without::SweepDecides, "a manifest names what is there"),
    ] {
        let checker = Protocol(without)
            .checker()
            .threads(2)
            .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([broken])))
            .spawn_bfs()
            .join();
        assert!(
            checker.discovery(broken).is_some(),
            "without {without:?} it still holds that {broken}"
        );
    }
}
