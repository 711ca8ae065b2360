//! [`Tournament`]: which of several sorted inputs gives the next row.

use std::cmp::Ordering;

/// The inputs that still have a row, kept in the order of those rows, so that each new row costs the logarithm of the
/// number of inputs in comparisons (Knuth, "The Art of Computer Programming" 3, §5.4.1). Equal rows leave in the order
/// of their inputs.
#[derive(Debug, Default)]
pub struct Tournament {
    /// Input indexes, the next to leave last.
    waiting: Vec<usize>,
}

impl Tournament {
    /// Enters `input`, whose row `compare` puts against the row of another input.
    ///
    /// # Errors
    /// What `compare` returns.
    pub fn enter<E>(
        &mut self,
        input: usize,
        mut compare: impl FnMut(usize, usize) -> Result<Ordering, E>,
    ) -> Result<(), E> {
        let (mut low, mut high) = (0, self.waiting.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let other = self.waiting[middle];
            if compare(input, other)?.then(input.cmp(&other)) == Ordering::Greater {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        self.waiting.insert(low, input);
        Ok(())
    }

    /// Takes out the input whose row is next.
    pub fn leave(&mut self) -> Option<usize> {
        self.waiting.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn merged(inputs: &[Vec<i32>]) -> Vec<(i32, usize)> {
        let mut next = vec![0; inputs.len()];
        let mut tournament = Tournament::default();
        let order = |next: &[usize], left: usize, right: usize| {
            Ok::<_, ()>(inputs[left][next[left]].cmp(&inputs[right][next[right]]))
        };
        for (input, rows) in inputs.iter().enumerate() {
            if !rows.is_empty() {
                tournament
                    .enter(input, |left, right| order(&next, left, right))
                    .unwrap();
            }
        }
        let mut rows = Vec::new();
        while let Some(input) = tournament.leave() {
            rows.push((inputs[input][next[input]], input));
            next[input] += 1;
            if next[input] < inputs[input].len() {
                tournament
                    .enter(input, |left, right| order(&next, left, right))
                    .unwrap();
            }
        }
        rows
    }

    proptest! {
        #[test]
        fn sorted_inputs_leave_sorted_and_stable(mut inputs in prop::collection::vec(prop::collection::vec(-5..5, 0..12), 0..9)) {
            inputs.iter_mut().for_each(|rows| rows.sort_unstable());
            let mut expected: Vec<(i32, usize)> =
                inputs.iter().enumerate().flat_map(|(input, rows)| rows.iter().map(move |row| (*row, input))).collect();
            expected.sort_unstable();
            prop_assert_eq!(merged(&inputs), expected);
        }
    }
}
