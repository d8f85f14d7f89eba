//! What is between the tool's output and the archive thread: a count that holds the tool back, and
//! buffers that are used again.

use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes of one read.
pub(super) const READ: usize = 256 << 10;

/// Buffers that are kept for further reads.
const SPARE: usize = 16;

/// Counts the bytes in the queue. One side waits for room, the other makes it.
#[derive(Debug, Default)]
pub(super) struct Gate {
    queued: AtomicU64,
    /// Whoever waits wants less than this in the queue.
    awaited: AtomicU64,
    released: Notify,
    spare: Mutex<Vec<BytesMut>>,
}

impl Gate {
    /// Bytes in the queue.
    pub(super) fn queued(&self) -> u64 {
        self.queued.load(Ordering::SeqCst)
    }

    /// Counts what goes into the queue; gives what is in it then.
    pub(super) fn add(&self, bytes: usize) -> u64 {
        self.queued.fetch_add(bytes as u64, Ordering::SeqCst) + bytes as u64
    }

    /// Waits until less than `bytes` are in the queue. There is one that waits.
    pub(super) async fn below(&self, bytes: u64) {
        // First this is said, then the count is read; `release` has it the other way round. So one
        // of the two sees what the other did.
        self.awaited.store(bytes, Ordering::SeqCst);
        while self.queued() >= bytes {
            self.released.notified().await;
        }
    }

    /// Counts what has left the queue, and keeps its memory for a further read: new memory costs the
    /// system's clearing it.
    pub(super) fn release(&self, chunk: Bytes) {
        let bytes = chunk.len() as u64;
        if let Ok(mut buffer) = chunk.try_into_mut() {
            buffer.clear();
            let mut spare = self.spare();
            if buffer.capacity() >= READ && spare.len() < SPARE {
                spare.push(buffer);
            }
        }
        let left = self.queued.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        // To wake a thread costs more than to read a chunk.
        if left < self.awaited.load(Ordering::SeqCst) {
            self.released.notify_one();
        }
    }

    /// An empty buffer for a read.
    pub(super) fn buffer(&self) -> BytesMut {
        let spare = self.spare().pop();
        spare.unwrap_or_else(|| BytesMut::with_capacity(READ))
    }

    fn spare(&self) -> MutexGuard<'_, Vec<BytesMut>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// However the two threads meet, the one that waits is woken.
    #[tokio::test(flavor = "multi_thread")]
    async fn no_wake_is_lost() {
        let gate = Arc::new(Gate::default());
        let (queue, queued) = std::sync::mpsc::channel::<Bytes>();
        let taker = Arc::clone(&gate);
        let taker = tokio::task::spawn_blocking(move || {
            for chunk in queued {
                taker.release(chunk);
            }
        });
        for round in 0..200_000_u64 {
            gate.below(1 + round % 4).await;
            gate.add(1);
            queue.send(Bytes::from_static(b"x")).unwrap();
        }
        gate.below(1).await;
        assert_eq!(gate.queued(), 0);
        drop(queue);
        taker.await.unwrap();
    }

    #[test]
    fn a_buffer_is_used_again_when_nobody_else_has_it() {
        let gate = Gate::default();
        let full = |gate: &Gate| {
            let mut buffer = gate.buffer();
            buffer.resize(READ, b'x');
            gate.add(READ);
            buffer.freeze()
        };
        let chunk = full(&gate);
        let place = chunk.as_ptr();
        gate.release(chunk);
        let again = full(&gate);
        assert_eq!(again.as_ptr(), place);
        let other = again.clone();
        gate.release(again);
        assert_ne!(gate.buffer().as_ptr(), place);
        assert_eq!(other.len(), READ);
        // What is kept is bounded.
        let many: Vec<Bytes> = (0..SPARE + 5).map(|_| full(&gate)).collect();
        for chunk in many {
            gate.release(chunk);
        }
        assert_eq!(gate.spare().len(), SPARE);
        assert_eq!(gate.queued(), 0);
    }
}
