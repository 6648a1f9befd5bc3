//! A curve as one line of a terminal: eight heights of a block, one column for a stretch of time.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The mean of each stretch, of `most` at full height; a blank is no data.
pub fn line(curve: &[Option<f64>], width: usize, most: f64) -> String {
    buckets(curve, width).into_iter().map(|mean| mean.map_or(' ', |mean| block(mean, most))).collect()
}

fn block(value: f64, most: f64) -> char {
    let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
    BLOCKS[(share * (BLOCKS.len() - 1) as f64).round() as usize]
}

/// So many means of equal stretches, or one of each entry where there are fewer.
pub fn buckets(curve: &[Option<f64>], width: usize) -> Vec<Option<f64>> {
    let width = width.min(curve.len());
    (0..width)
        .map(|n| {
            let stretch = &curve[n * curve.len() / width..(n + 1) * curve.len() / width];
            let (count, sum) = stretch.iter().flatten().fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
            (count > 0).then(|| sum / f64::from(count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_and_gaps() {
        let curve: Vec<Option<f64>> = (0..8).map(|n| (n != 3).then_some(f64::from(n))).collect();
        assert_eq!(line(&curve, 8, 7.0), "▁▂▃ ▅▆▇█");
        assert_eq!(line(&curve, 4, 7.0), "▂▃▆█");
        assert_eq!(line(&curve, 80, 7.0).chars().count(), 8);
        assert_eq!(line(&[], 80, 7.0), "");
        assert_eq!(line(&[Some(1.0)], 1, 0.0), "▁");
    }
}
