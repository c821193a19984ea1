//! Buffers for moving bytes: taken when data is there, given back when the stream is quiet, so that an idle connection holds none.
//!
//! Each thread keeps a few free ones; a buffer may be dropped on another thread than the one that took it.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// How large a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferSize {
    /// 16 KiB: one TLS record, the first reads of a stream.
    Small,
    /// 64 KiB: a stream that keeps sending.
    Medium,
    /// 256 KiB: bulk transfer.
    Large,
}

impl BufferSize {
    /// Its length in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            BufferSize::Small => 16 << 10,
            BufferSize::Medium => 64 << 10,
            BufferSize::Large => 256 << 10,
        }
    }

    /// How many free ones a thread keeps.
    const fn kept(self) -> usize {
        match self {
            BufferSize::Small => 16,
            BufferSize::Medium => 8,
            BufferSize::Large => 4,
        }
    }

    /// The next larger size.
    pub const fn grown(self) -> Self {
        match self {
            BufferSize::Small => BufferSize::Medium,
            BufferSize::Medium | BufferSize::Large => BufferSize::Large,
        }
    }
}

thread_local! {
    static FREE: [RefCell<Vec<Box<[u8]>>>; 3] = const { [const { RefCell::new(Vec::new()) }; 3] };
}

/// One buffer in use; its content is whatever the last user left.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    size: BufferSize,
}

impl Buffer {
    /// A free buffer of this size, or a new one.
    pub fn take(size: BufferSize) -> Self {
        let free = FREE.with(|free| free[size as usize].borrow_mut().pop());
        Self { bytes: free.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice()), size }
    }

    /// Its size class.
    pub fn size(&self) -> BufferSize {
        self.size
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // While a thread ends its free list is gone: then the memory just goes back to the system.
        let _ = FREE.try_with(|free| {
            let mut free = free[self.size as usize].borrow_mut();
            if free.len() < self.size.kept() {
                free.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let first = Buffer::take(BufferSize::Large);
        let address = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::take(BufferSize::Large).as_ptr(), address);
    }

    #[test]
    fn only_a_few_free_buffers_are_kept() {
        let taken: Vec<_> = (0..50).map(|_| Buffer::take(BufferSize::Medium)).collect();
        drop(taken);
        FREE.with(|free| {
            assert_eq!(free[BufferSize::Medium as usize].borrow().len(), BufferSize::Medium.kept());
        });
    }
}
