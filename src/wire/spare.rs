//! Spare buffers: what is read, answered and sent lives in a buffer for as long as it is there, and most clients have
//! nothing there most of the time. A thread keeps a few buffers for all its streams, the warmest on top, so that one who
//! waits holds none and one who is answered allocates none.

use bytes::BytesMut;
use std::cell::RefCell;

/// The room of a new buffer.
pub const SPARE_BYTES: usize = 4 * 1024;

/// A buffer that grew to more is not kept.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// The most buffers that a thread keeps.
const SPARES_MAX: usize = 256;

thread_local! {
    static SPARES: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`SPARE_BYTES`] at least.
pub fn take() -> BytesMut {
    let spare = SPARES.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| BytesMut::with_capacity(SPARE_BYTES))
}

/// Keeps a buffer for others; what is in it is gone.
pub fn give(mut buffer: BytesMut) {
    buffer.clear();
    let kept = match buffer.capacity() {
        // It may be what is left of a larger one.
        SPARE_BYTES..=SPARE_BYTES_MAX => !has_room_for(&mut buffer, SPARE_BYTES_MAX + 1),
        // One that has less room left than that is moved to its front, and then tells all of its capacity.
        0..SPARE_BYTES => {
            has_room_for(&mut buffer, SPARE_BYTES) && buffer.capacity() <= SPARE_BYTES_MAX
        }
        _ => false,
    };
    if !kept {
        return;
    }
    SPARES.with_borrow_mut(|spares| {
        if spares.len() < SPARES_MAX {
            spares.push(buffer);
        }
    });
}

/// Whether an empty buffer's allocation, which no one else has a part of, is this large. (Its capacity does not say so: what
/// was consumed does not count there.)
pub fn has_room_for(buffer: &mut BytesMut, bytes: usize) -> bool {
    buffer.try_reclaim(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf as _;

    fn spares() -> usize {
        SPARES.with_borrow(Vec::len)
    }

    #[test]
    fn a_buffer_that_was_read_to_its_end_is_kept_with_all_its_room() {
        let mut buffer = take();
        buffer.resize(SPARE_BYTES, 0);
        buffer.advance(SPARE_BYTES);
        let place = buffer.as_ptr();
        give(buffer);
        let again = take();
        assert_eq!(again.capacity(), SPARE_BYTES);
        assert_eq!(again.as_ptr(), place.wrapping_sub(SPARE_BYTES));
    }

    #[test]
    fn large_small_and_shared_buffers_are_not_kept() {
        let mut large = BytesMut::zeroed(1 << 20);
        large.advance((1 << 20) - SPARE_BYTES);
        give(large);
        give(BytesMut::with_capacity(SPARE_BYTES - 1));
        let mut shared = take();
        shared.resize(SPARE_BYTES, 0);
        let part = shared.split_to(1);
        give(shared);
        assert_eq!(spares(), 0);
        drop(part);
    }

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let buffers: Vec<_> = (0..=SPARES_MAX).map(|_| take()).collect();
        buffers.into_iter().for_each(give);
        assert_eq!(spares(), SPARES_MAX);
    }
}
