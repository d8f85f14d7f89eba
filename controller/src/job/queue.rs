//! Whose turn it is: jobs that wait for a transfer, fair to namespaces and schedules.

use std::collections::VecDeque;

/// Jobs that wait. Namespaces take turns; within a namespace its schedules do (jobs without one count
/// as one schedule); within a schedule it is first come, first served. So among `n` namespaces each
/// gets one of any `n` turns, whatever the others put in.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// In the order of their next turns. None is empty.
    namespaces: VecDeque<Group<Group<Waiting<T>>>>,
}

/// What takes turns with others of its kind.
#[derive(Debug)]
struct Group<T> {
    name: String,
    members: VecDeque<T>,
}

#[derive(Debug)]
struct Waiting<T> {
    id: String,
    item: T,
}

/// Where a job stands in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// Its namespace.
    pub(super) namespace: &'a str,
    /// Its schedule; empty for jobs that have none.
    pub(super) schedule: &'a str,
    /// The job's uid.
    pub(super) id: &'a str,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            namespaces: VecDeque::new(),
        }
    }
}

/// The member of this name, made at the end of the line if there is none.
fn group<'a, T>(line: &'a mut VecDeque<Group<T>>, name: &str) -> Option<&'a mut Group<T>> {
    if !line.iter().any(|group| group.name == name) {
        line.push_back(Group {
            name: name.to_owned(),
            members: VecDeque::new(),
        });
    }
    line.iter_mut().find(|group| group.name == name)
}

impl<T> FairQueue<T> {
    /// Puts a job in line. One that stands there keeps its place.
    pub(super) fn push(&mut self, place: Place<'_>, item: T) {
        if self.get_mut(place.id).is_some() {
            return;
        }
        let line = group(&mut self.namespaces, place.namespace)
            .and_then(|namespace| group(&mut namespace.members, place.schedule));
        if let Some(schedule) = line {
            schedule.members.push_back(Waiting {
                id: place.id.to_owned(),
                item,
            });
        }
    }

    /// The job whose turn it is. Its namespace and its schedule go to the end of their lines.
    pub(super) fn pop(&mut self) -> Option<(String, T)> {
        let mut namespace = self.namespaces.pop_front()?;
        let mut schedule = namespace.members.pop_front()?;
        let job = schedule.members.pop_front()?;
        if !schedule.members.is_empty() {
            namespace.members.push_back(schedule);
        }
        if !namespace.members.is_empty() {
            self.namespaces.push_back(namespace);
        }
        Some((job.id, job.item))
    }

    /// Takes a job out of the line.
    pub(super) fn remove(&mut self, id: &str) -> Option<T> {
        let mut found = None;
        for namespace in &mut self.namespaces {
            for schedule in &mut namespace.members {
                if let Some(at) = schedule.members.iter().position(|job| job.id == id) {
                    found = schedule.members.remove(at);
                }
            }
            namespace.members.retain(|s| !s.members.is_empty());
        }
        self.namespaces.retain(|n| !n.members.is_empty());
        found.map(|job| job.item)
    }

    /// What was put in for a job.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.namespaces
            .iter_mut()
            .flat_map(|namespace| &mut namespace.members)
            .flat_map(|schedule| &mut schedule.members)
            .find(|job| job.id == id)
            .map(|job| &mut job.item)
    }

    /// How many turns come before this job's, if nobody joins.
    #[must_use]
    pub(super) fn ahead(&self, id: &str) -> Option<usize> {
        let (mine, namespace) = self.namespaces.iter().enumerate().find_map(|(at, n)| {
            let schedules: Vec<_> = n.members.iter().map(|s| s.members.len()).collect();
            let (schedule, job) = n.members.iter().enumerate().find_map(|(at, s)| {
                let job = s.members.iter().position(|job| job.id == id)?;
                Some((at, job))
            })?;
            Some((turns_before(&schedules, schedule, job), at))
        })?;
        let sizes: Vec<_> = self
            .namespaces
            .iter()
            .map(|n| n.members.iter().map(|s| s.members.len()).sum())
            .collect();
        Some(turns_before(&sizes, namespace, mine))
    }

    /// How many jobs wait.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.jobs().count()
    }

    /// The jobs that wait, by uid, in no order.
    pub(super) fn jobs(&self) -> impl Iterator<Item = (&str, &T)> {
        self.namespaces
            .iter()
            .flat_map(|namespace| &namespace.members)
            .flat_map(|schedule| &schedule.members)
            .map(|job| (job.id.as_str(), &job.item))
    }
}

/// Groups of these sizes take turns from the first on: the turns before the `nth` (from 0) of group `own`.
fn turns_before(sizes: &[usize], own: usize, nth: usize) -> usize {
    sizes
        .iter()
        .enumerate()
        .map(|(group, size)| match group.cmp(&own) {
            // Those before have had one turn more when ours comes.
            std::cmp::Ordering::Less => (*size).min(nth + 1),
            std::cmp::Ordering::Equal => nth,
            std::cmp::Ordering::Greater => (*size).min(nth),
        })
        .sum()
}

#[cfg(test)]
mod tests;
