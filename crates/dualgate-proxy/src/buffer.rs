//! Buffers that exist only while there is something in them.
//!
//! An idle connection holds none: a buffer is taken from its worker's pool when the socket is readable and goes back
//! when it is empty. There are two sizes; a buffer that a single read filled grows to the large one, so that bodies
//! move in few system calls.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

/// Enough for a TLS record and for nearly every head.
pub const SMALL: usize = 18 * 1024;
/// For bodies.
pub const LARGE: usize = 128 * 1024;

/// How many free buffers of each size a worker keeps.
const KEPT: usize = 64;

/// The free buffers of one worker.
#[derive(Debug, Default)]
pub struct BufferPool {
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
}

impl BufferPool {
    fn take(&self, size: usize) -> Box<[u8]> {
        let shelf = if size == LARGE { &self.large } else { &self.small };
        shelf.borrow_mut().pop().unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give(&self, memory: Box<[u8]>) {
        let shelf = match memory.len() {
            SMALL => &self.small,
            LARGE => &self.large,
            _ => return,
        };
        let mut shelf = shelf.borrow_mut();
        if shelf.len() < KEPT {
            shelf.push(memory);
        }
    }
}

/// Bytes that were read and not yet used.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What has not been used.
    pub fn filled(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// The same, for decryption in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How much is left.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Marks the first `count` bytes as used.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Returns the memory to the pool if nothing is left in it.
    pub fn release(&mut self, pool: &BufferPool) {
        if self.is_empty() && !self.memory.is_empty() {
            pool.give(std::mem::take(&mut self.memory));
        }
    }

    /// Appends `bytes`, growing beyond the pool's sizes if it must.
    pub fn extend(&mut self, pool: &BufferPool, bytes: &[u8]) {
        self.free(pool, bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
    }

    /// Free memory behind what is filled, of at least `room` bytes; [`Buffer::commit`] says how much of it was filled.
    pub fn free(&mut self, pool: &BufferPool, room: usize) -> &mut [u8] {
        self.make_room(pool, room);
        &mut self.memory[self.end..]
    }

    /// The first `count` bytes of the free memory are filled.
    pub fn commit(&mut self, count: usize) {
        self.end = (self.end + count).min(self.memory.len());
    }

    /// Reads once. `read` gets the free part, of at least one byte.
    pub fn poll_fill(
        &mut self,
        pool: &BufferPool,
        cx: &mut Context<'_>,
        read: impl FnOnce(&mut Context<'_>, &mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<usize>> {
        if self.end == self.memory.len() {
            self.make_room(pool, 1);
        }
        let mut free = ReadBuf::new(&mut self.memory[self.end..]);
        match read(cx, &mut free) {
            Poll::Ready(Ok(())) => {
                let count = free.filled().len();
                self.end += count;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.release(pool);
                Poll::Pending
            }
        }
    }

    /// Makes sure that `count` more bytes fit.
    fn make_room(&mut self, pool: &BufferPool, count: usize) {
        if self.memory.len() - self.end >= count {
            return;
        }
        let needed = self.len() + count;
        if needed <= self.memory.len() {
            self.memory.copy_within(self.start..self.end, 0);
        } else {
            let mut larger = if needed <= SMALL {
                pool.take(SMALL)
            } else if needed <= LARGE {
                pool.take(LARGE)
            } else {
                vec![0; needed.next_power_of_two()].into_boxed_slice()
            };
            larger[..self.len()].copy_from_slice(self.filled());
            pool.give(std::mem::replace(&mut self.memory, larger));
        }
        (self.start, self.end) = (0, self.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, pool: &BufferPool, bytes: &[u8]) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let filled = buffer.poll_fill(pool, &mut cx, |_, free| {
            let count = bytes.len().min(free.remaining());
            free.put_slice(&bytes[..count]);
            Poll::Ready(Ok(()))
        });
        match filled {
            Poll::Ready(Ok(count)) => count,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_buffer_that_a_read_filled_grows_and_keeps_what_it_holds() {
        let (pool, mut buffer) = (BufferPool::default(), Buffer::default());
        assert_eq!(fill(&mut buffer, &pool, &[7; LARGE]), SMALL);
        assert_eq!(fill(&mut buffer, &pool, &[8; LARGE]), LARGE - SMALL);
        assert_eq!((buffer.filled()[SMALL - 1], buffer.filled()[SMALL]), (7, 8));
    }

    #[test]
    fn used_bytes_make_room_before_the_buffer_grows() {
        let (pool, mut buffer) = (BufferPool::default(), Buffer::default());
        fill(&mut buffer, &pool, &[7; SMALL]);
        buffer.consume(SMALL - 1);
        assert_eq!(fill(&mut buffer, &pool, &[8; LARGE]), SMALL - 1);
        assert_eq!(buffer.len(), SMALL);
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back() {
        let (pool, mut buffer) = (BufferPool::default(), Buffer::default());
        fill(&mut buffer, &pool, b"x");
        buffer.release(&pool);
        assert_eq!(pool.small.borrow().len(), 0, "it is not empty yet");
        buffer.consume(1);
        buffer.release(&pool);
        assert_eq!((pool.small.borrow().len(), buffer.memory.len()), (1, 0));
    }

    #[test]
    fn extending_moves_beyond_the_pools_sizes() {
        let (pool, mut buffer) = (BufferPool::default(), Buffer::default());
        buffer.extend(&pool, &[1; LARGE]);
        buffer.extend(&pool, &[2; 10]);
        assert_eq!(buffer.len(), LARGE + 10);
        assert_eq!(buffer.filled()[LARGE], 2);
    }
}
