//! The Mersenne Twister (MT19937, 32 bits): the sequence in which Envoy tries other hosts when the one of the hash has too much to do.

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// The generator. A word of its state is renewed when it is drawn, not all of them at once: usually one or two are.
#[derive(Debug)]
pub(super) struct Twister {
    state: [u32; SIZE],
    next: usize,
}

impl Twister {
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for at in 1..SIZE {
            let before = state[at - 1];
            let mixed = (before ^ (before >> 30)).wrapping_mul(1_812_433_253);
            state[at] = mixed.wrapping_add(at as u32);
        }
        Self { state, next: 0 }
    }

    /// A number below `bound`, as Envoy draws it.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        let part = (1u64 << 32) / u64::from(bound);
        loop {
            let drawn = u64::from(self.draw()) / part;
            if drawn < u64::from(bound) {
                return drawn as u32;
            }
        }
    }

    fn draw(&mut self) -> u32 {
        let at = self.next;
        self.next = (at + 1) % SIZE;
        let joined = (self.state[at] & 0x8000_0000) | (self.state[self.next] & 0x7fff_ffff);
        let twist = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
        let mut y = self.state[(at + MIDDLE) % SIZE] ^ (joined >> 1) ^ twist;
        self.state[at] = y;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_standards() {
        // [rand.predef]: the 10000th number of the default seed.
        let mut twister = Twister::new(5489);
        (1..10_000).for_each(|_| _ = twister.draw());
        assert_eq!(twister.draw(), 4_123_659_995);
    }
}
