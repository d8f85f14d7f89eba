//! What there is: the job, the bucket, and what each controller is at.

/// Attempts that a job has.
pub(crate) const ATTEMPTS: usize = 2;
pub(crate) const CONTROLLERS: usize = 2;

/// Number of an attempt, from 1.
pub(crate) type Attempt = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Manifest {
    Complete(Attempt),
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Running,
    Succeeded(Attempt),
    Failed,
    /// The object was deleted.
    Gone,
}

/// The object in the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    /// `status.attempt`.
    pub(crate) attempt: Attempt,
    /// It was claimed and has no end.
    pub(crate) open: bool,
    /// Completed objects may exist.
    pub(crate) complete_tried: bool,
    /// No further attempt follows.
    pub(crate) ending: bool,
    pub(crate) phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Upload {
    #[default]
    None,
    Open,
    Aborted,
    /// The object is there.
    Completed,
    /// It was, and was deleted.
    Deleted,
}

/// The folder of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Folder {
    pub(crate) mark: bool,
    pub(crate) upload: Upload,
    /// The sender is dead, the request is not.
    pub(crate) complete_under_way: bool,
    pub(crate) manifest_under_way: bool,
}

/// A step of a transfer, the next one to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    ReadManifest,
    PutMark,
    OpenUpload,
    Stream,
    Complete,
    Head,
    PutManifest,
    /// The create was answered with AlreadyExists, or not at all.
    ReadStanding,
    Abort {
        tried: bool,
    },
}

/// A step of taking away what an attempt left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Clean {
    ReadMark,
    ReadDecision,
    AbortUpload(Option<Manifest>),
    DeleteObjects(Option<Manifest>),
    DeleteMark,
}

/// What one controller is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    Idle,
    /// It plans by the job as it was.
    Planning(Job),
    Transfer(Attempt, Step),
    /// A transfer is over; the job does not say so yet. `None`: it failed.
    Ended {
        attempt: Attempt,
        standing: Option<Attempt>,
        tried: bool,
        never_again: bool,
    },
    /// The claimant of an open attempt is gone.
    ReadDecision(Job),
    Recover(Job, Clean),
    RecordLost(Job),
    /// The job ends without a backup.
    Abandon(Job),
    CleanAll(Job, Attempt, Clean),
    Conclude(Job),
    Succeed(Job, Attempt),
    /// The sweep: nobody is to come back to this job.
    SweepDecide,
    Sweep(Attempt, Clean),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) job: Job,
    pub(crate) cancelled: bool,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) folders: [Folder; ATTEMPTS],
    pub(crate) controllers: [Work; CONTROLLERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Luck {
    /// Done, and the answer came.
    Good,
    /// Done, but the answer was lost.
    ReplyLost,
    /// Not done.
    Bad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Look(usize),
    Do(usize, Luck),
    Crash {
        controller: usize,
        request_lives: bool,
    },
    /// The user, or the deadline.
    Cancel,
    /// The user deletes the object.
    Delete,
    /// A controller looks for what jobs that have ended or are gone have left.
    Sweep(usize),
    Arrive(Attempt),
}

/// What is left out to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    Nothing,
    /// Failing without putting Abandoned first.
    Abandon,
    /// A manifest that overwrites.
    CreateOnly,
    /// Writing to the job without looking whether it has changed.
    ResourceVersion,
    /// Deleting objects while nothing is decided.
    LeavingUndecided,
    /// Sweeping objects without putting Abandoned first.
    SweepDecides,
}

/// The protocol, or what is left of it.
pub(crate) struct Protocol(pub(crate) Without);

impl World {
    pub(crate) fn folder(&mut self, attempt: Attempt) -> &mut Folder {
        &mut self.folders[attempt - 1]
    }

    pub(crate) fn there(&self, attempt: Attempt) -> bool {
        self.folders[attempt - 1].upload == Upload::Completed
    }

    pub(crate) fn complete(&mut self, attempt: Attempt) -> bool {
        let folder = self.folder(attempt);
        if folder.upload == Upload::Open {
            folder.upload = Upload::Completed;
        }
        folder.upload == Upload::Completed
    }

    /// Whether it was created.
    pub(crate) fn create_manifest(&mut self, manifest: Manifest, without: Without) -> bool {
        if self.manifest.is_none() || without == Without::CreateOnly {
            self.manifest = Some(manifest);
            return true;
        }
        false
    }

    pub(crate) fn write(&mut self, seen: Job, without: Without, change: impl FnOnce(&mut Job)) {
        if self.job == seen || without == Without::ResourceVersion {
            change(&mut self.job);
        }
    }
}
