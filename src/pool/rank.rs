//! Rendezvous hashing (Thaler and Ravishankar, 1998): an order of the workers
//! for each adapter that is the same at every gateway, and of which only one
//! place changes when a worker comes or goes.

/// Lower goes first.
pub(super) fn rank(salt: &str, worker: &str) -> u64 {
    // FNV-1a, since it is the same for every build; then mixed (Murmur3's
    // finaliser), since its last bytes move the high bits too little.
    let bytes = salt.bytes().chain([0]).chain(worker.bytes());
    let mut hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_is_first_for_its_part_and_one_that_leaves_moves_no_other() {
        let workers = ["a", "b", "c", "d"];
        let first = |workers: &[&'static str], key: usize| {
            *workers.iter().min_by_key(|worker| rank(&key.to_string(), worker)).expect("one")
        };
        let mut counts = [0; 4];
        for key in 0..4_000 {
            let all = first(&workers, key);
            counts[workers.iter().position(|worker| *worker == all).expect("one of them")] += 1;
            if all != "d" {
                assert_eq!(first(&workers[..3], key), all);
            }
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
