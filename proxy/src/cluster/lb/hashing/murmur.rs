//! MurmurHash2, 64 bits, with the seed of libstdc++'s `std::hash`: what Envoy calls `MURMUR_HASH_2`.

const SEED: u64 = 0xc70f_6907;
const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;

pub(super) fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    for word in words {
        let mixed = mix(u64::from_le_bytes(*word).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
        hash = (hash ^ mixed).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    }
    mix(mix(hash).wrapping_mul(FACTOR))
}

fn mix(value: u64) -> u64 {
    value ^ (value >> 47)
}
