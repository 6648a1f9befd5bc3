//! Makes a failing script small: leaves commands out as long as the same rule is still broken, larger parts first, then one by one
//! (delta debugging), within a number of runs.

use super::script::{Script, Timed};

/// The smallest script found of which `fails` holds, which it does of `script`, and how many runs that took.
pub fn shrink(script: &Script, most_runs: usize, mut fails: impl FnMut(&Script) -> bool) -> (Script, usize) {
    let mut best = script.clone();
    let mut runs = 0;
    let mut parts = 2;
    while best.commands.len() > 1 && runs < most_runs {
        let size = best.commands.len().div_ceil(parts);
        let mut found = None;
        for n in 0..parts {
            let without = leave_out(&best.commands, n * size, size);
            if without.len() == best.commands.len() || runs >= most_runs {
                continue;
            }
            runs += 1;
            let candidate = Script { commands: without, ..best.clone() };
            if fails(&candidate) {
                found = Some(candidate);
                break;
            }
        }
        match found {
            Some(smaller) => {
                best = smaller;
                parts = parts.saturating_sub(1).max(2);
            }
            // Every single one is needed.
            None if size == 1 => break,
            None => parts = (parts * 2).min(best.commands.len()),
        }
    }
    if best.commands.len() == 1 && runs < most_runs {
        runs += 1;
        let nothing = Script { commands: Vec::new(), ..best.clone() };
        if fails(&nothing) {
            best = nothing;
        }
    }
    (best, runs)
}

fn leave_out(commands: &[Timed], from: usize, size: usize) -> Vec<Timed> {
    let outside = |n: &usize| *n < from || *n >= from + size;
    commands.iter().enumerate().filter(|(n, _)| outside(n)).map(|(_, command)| command.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::generate;

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        let script = generate::script(3, &generate::Options::default());
        let needed = [script.commands[2].clone(), script.commands[9].clone(), script.commands[17].clone()];
        let fails = |script: &Script| needed.iter().all(|command| script.commands.contains(command));
        let (small, runs) = shrink(&script, 1_000, fails);
        assert_eq!(small.commands, needed);
        assert!(runs < 100, "{runs}");
        let (whole, runs) = shrink(&script, 5, fails);
        assert!(fails(&whole) && runs <= 5);
        assert_eq!(shrink(&script, 1_000, |_| true).0.commands, []);
    }
}
