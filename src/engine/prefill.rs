//! How prompts that are being read share a step.

/// Of a step, in parts, what is the oldest prompt's in any case: short ones that keep
/// coming do not hold up a long one for ever.
const OLDEST: usize = 4;

/// Tokens of the next step for each prompt, oldest first, of which `pending` are left to
/// read; together `chunk` at most. The prompt with the fewest left is first, so that a
/// long one holds nobody up who has little to say (shortest remaining processing time,
/// Schrage 1968); of equal ones it is the oldest.
pub(super) fn shares(pending: &[usize], chunk: usize) -> Vec<usize> {
    let mut shares = vec![0; pending.len()];
    let mut left = chunk;
    let mut give = |at: usize, most: usize| {
        let more = (pending[at] - shares[at]).min(most).min(left);
        shares[at] += more;
        left -= more;
    };
    if let Some(oldest) = pending.iter().position(|pending| *pending > 0) {
        give(oldest, (chunk / OLDEST).max(1));
    }
    let mut order: Vec<usize> = (0..pending.len()).collect();
    order.sort_by_key(|at| pending[*at]);
    for at in order {
        give(at, chunk);
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_prompt_is_read_beside_a_long_one() {
        assert_eq!(shares(&[5500, 35], 256), [221, 35]);
        assert_eq!(shares(&[5500, 4000, 300], 256), [64, 0, 192]);
    }

    #[test]
    fn equal_prompts_are_read_in_their_order() {
        assert_eq!(shares(&[41; 8], 256), [41, 41, 41, 41, 41, 41, 10, 0]);
    }

    proptest! {
        #[test]
        fn a_step_is_used_and_no_more_and_the_oldest_goes_on(
            pending in prop::collection::vec(0_usize..600, 0..20),
            chunk in 1_usize..300,
        ) {
            let shares = shares(&pending, chunk);
            let all: usize = pending.iter().sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), all.min(chunk));
            prop_assert!(shares.iter().zip(&pending).all(|(share, pending)| share <= pending));
            if let Some(oldest) = pending.iter().position(|pending| *pending > 0) {
                prop_assert!(shares[oldest] >= pending[oldest].min(chunk / OLDEST).max(1));
            }
        }
    }
}
