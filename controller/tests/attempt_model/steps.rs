//! The steps, each of which reaches the API server or the store once.

use crate::world::{
    ATTEMPTS, Attempt, Clean, Luck, Manifest, Phase, Protocol, Step, Upload, Without, Work, World,
};

impl Protocol {
    /// One step of a transfer; what the controller is at then. `None`: that luck makes no difference.
    fn transfer(
        &self,
        world: &mut World,
        attempt: Attempt,
        step: Step,
        luck: Luck,
    ) -> Option<Work> {
        let go = |step| Work::Transfer(attempt, step);
        let failed = |tried, never_again| Work::Ended {
            attempt,
            standing: None,
            tried,
            never_again,
        };
        let stands = |manifest: Manifest| match manifest {
            Manifest::Complete(won) => Work::Ended {
                attempt,
                standing: Some(won),
                tried: false,
                never_again: false,
            },
            Manifest::Abandoned => failed(true, true),
        };
        let certain = luck == Luck::Good;
        Some(match step {
            Step::ReadManifest if certain => match world.manifest {
                Some(manifest) => stands(manifest),
                None => go(Step::PutMark),
            },
            Step::PutMark if certain => {
                world.folder(attempt).mark = true;
                go(Step::OpenUpload)
            }
            Step::OpenUpload if certain => {
                world.folder(attempt).upload = Upload::Open;
                go(Step::Stream)
            }
            // The verdict.
            Step::Stream => match luck {
                Luck::Good => go(Step::Complete),
                Luck::Bad => go(Step::Abort { tried: false }),
                Luck::ReplyLost => return None,
            },
            Step::Complete => match luck {
                Luck::Good if world.complete(attempt) => go(Step::Head),
                Luck::Good => go(Step::Abort { tried: true }),
                Luck::ReplyLost => {
                    world.complete(attempt);
                    go(Step::Abort { tried: true })
                }
                Luck::Bad => go(Step::Abort { tried: true }),
            },
            Step::Head if certain => {
                if world.there(attempt) {
                    go(Step::PutManifest)
                } else {
                    go(Step::Abort { tried: true })
                }
            }
            Step::PutManifest => {
                let manifest = Manifest::Complete(attempt);
                match luck {
                    Luck::Good if world.create_manifest(manifest, self.0) => stands(manifest),
                    Luck::Good => go(Step::ReadStanding),
                    Luck::ReplyLost => {
                        world.create_manifest(manifest, self.0);
                        go(Step::ReadStanding)
                    }
                    Luck::Bad => go(Step::ReadStanding),
                }
            }
            Step::ReadStanding => match (luck, world.manifest) {
                (Luck::Good, Some(manifest)) => stands(manifest),
                (Luck::Good, None) | (Luck::Bad, _) => go(Step::Abort { tried: true }),
                (Luck::ReplyLost, _) => return None,
            },
            Step::Abort { tried } if certain => {
                let folder = world.folder(attempt);
                if folder.upload == Upload::Open {
                    folder.upload = Upload::Aborted;
                }
                if !tried {
                    folder.mark = false;
                }
                failed(tried, false)
            }
            _ => return None,
        })
    }

    /// One step of cleaning; `None`: it is over. `leave`: objects stay while nothing is decided.
    fn clean(world: &mut World, attempt: Attempt, step: Clean, leave: bool) -> Option<Clean> {
        match step {
            Clean::ReadMark => world.folder(attempt).mark.then_some(Clean::ReadDecision),
            Clean::ReadDecision => match world.manifest {
                Some(Manifest::Complete(won)) if won == attempt => None,
                decision => Some(Clean::AbortUpload(decision)),
            },
            Clean::AbortUpload(decision) => {
                let folder = world.folder(attempt);
                if folder.upload == Upload::Open {
                    folder.upload = Upload::Aborted;
                }
                Some(Clean::DeleteObjects(decision))
            }
            Clean::DeleteObjects(decision) => {
                let there = world.there(attempt);
                if decision.is_none() && there && leave {
                    return None;
                }
                if there {
                    world.folder(attempt).upload = Upload::Deleted;
                }
                Some(Clean::DeleteMark)
            }
            Clean::DeleteMark => {
                world.folder(attempt).mark = false;
                None
            }
        }
    }

    pub(crate) fn work(&self, world: &mut World, work: Work, luck: Luck) -> Option<Work> {
        if let Work::Transfer(attempt, step) = work {
            return self.transfer(world, attempt, step, luck);
        }
        let leave = self.0 != Without::LeavingUndecided;
        let sweep_leaves = self.0 != Without::SweepDecides;
        // Who writes what became of an attempt decides by it whether another one follows.
        let last = match (work, luck) {
            (Work::Ended { standing: None, .. } | Work::RecordLost(_), Luck::Good) => false,
            (Work::Ended { standing: None, .. } | Work::RecordLost(_), Luck::Bad) => true,
            (_, Luck::Good) => false,
            _ => return None,
        };
        Some(match work {
            Work::Idle | Work::Transfer(..) => return None,
            Work::Planning(seen) => {
                if seen.open {
                    Work::ReadDecision(seen)
                } else if seen.ending || world.cancelled || seen.attempt == ATTEMPTS {
                    if seen.complete_tried && self.0 != Without::Abandon {
                        Work::Abandon(seen)
                    } else if seen.attempt > 0 {
                        Work::CleanAll(seen, 1, Clean::ReadMark)
                    } else {
                        Work::Conclude(seen)
                    }
                } else {
                    let before = world.job;
                    let attempt = seen.attempt + 1;
                    world.write(seen, self.0, |job| {
                        job.attempt = attempt;
                        job.open = true;
                    });
                    if world.job == before {
                        Work::Idle
                    } else {
                        Work::Transfer(attempt, Step::ReadManifest)
                    }
                }
            }
            Work::Ended {
                attempt,
                standing,
                tried,
                never_again,
            } => {
                let seen = world.job;
                if seen.phase == Phase::Running && seen.open && seen.attempt == attempt {
                    if let Some(won) = standing {
                        return Some(Work::Succeed(seen, won));
                    }
                    world.write(seen, self.0, |job| {
                        job.open = false;
                        job.complete_tried |= tried;
                        job.ending |= never_again || last;
                    });
                }
                Work::Idle
            }
            Work::ReadDecision(seen) => match world.manifest {
                Some(Manifest::Complete(won)) => Work::Succeed(seen, won),
                _ => Work::Recover(seen, Clean::ReadMark),
            },
            Work::Recover(seen, step) => match Self::clean(world, seen.attempt, step, leave) {
                Some(step) => Work::Recover(seen, step),
                None => Work::RecordLost(seen),
            },
            Work::RecordLost(seen) => {
                world.write(seen, self.0, |job| {
                    job.open = false;
                    // A zombie of the claimant may still complete it.
                    job.complete_tried = true;
                    job.ending |= last;
                });
                Work::Idle
            }
            Work::Abandon(seen) => {
                world.create_manifest(Manifest::Abandoned, self.0);
                match world.manifest {
                    Some(Manifest::Complete(won)) => Work::Succeed(seen, won),
                    _ => Work::CleanAll(seen, 1, Clean::ReadMark),
                }
            }
            Work::CleanAll(seen, attempt, step) => match Self::clean(world, attempt, step, leave) {
                Some(step) => Work::CleanAll(seen, attempt, step),
                None if attempt < seen.attempt => {
                    Work::CleanAll(seen, attempt + 1, Clean::ReadMark)
                }
                None => Work::Conclude(seen),
            },
            Work::SweepDecide => {
                if self.0 != Without::SweepDecides {
                    world.create_manifest(Manifest::Abandoned, self.0);
                }
                Work::Sweep(1, Clean::ReadMark)
            }
            Work::Sweep(attempt, step) => match Self::clean(world, attempt, step, sweep_leaves) {
                Some(step) => Work::Sweep(attempt, step),
                None if attempt < ATTEMPTS => Work::Sweep(attempt + 1, Clean::ReadMark),
                None => Work::Idle,
            },
            Work::Conclude(seen) => {
                world.write(seen, self.0, |job| job.phase = Phase::Failed);
                Work::Idle
            }
            Work::Succeed(seen, won) => {
                world.write(seen, self.0, |job| {
                    job.open = false;
                    job.phase = Phase::Succeeded(won);
                });
                Work::Idle
            }
        })
    }
}
