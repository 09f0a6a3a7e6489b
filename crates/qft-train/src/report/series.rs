//! A number as it changes over the steps of a run, in bounded memory.

/// Groups of points that are kept: when all are full, each two become one.
const GROUPS: usize = 512;

/// The points of a number in the order of steps, in groups of equally many neighbours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    groups: Vec<Group>,
    /// Points of a full group.
    width: usize,
    /// The first value.
    pub(super) first: f64,
    /// The last value.
    pub(super) last: f64,
    /// The smallest value, and its step.
    pub(super) least: (f64, f64),
    /// The largest value.
    pub(super) greatest: f64,
}

/// Some points that follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Group {
    points: usize,
    steps: f64,
    sum: f64,
    min: f64,
    max: f64,
}

/// What is known of a group of points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// The mean of its steps.
    pub(super) step: f64,
    /// The mean of its values.
    pub(super) mean: f64,
    /// The smallest value.
    pub(super) min: f64,
    /// The largest value.
    pub(super) max: f64,
}

impl Group {
    fn add(&mut self, other: &Self) {
        self.points += other.points;
        self.steps += other.steps;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

impl Series {
    /// Of one point.
    pub(super) fn new(step: f64, value: f64) -> Self {
        let mut series = Self {
            groups: Vec::new(),
            width: 1,
            first: value,
            last: value,
            least: (value, step),
            greatest: value,
        };
        series.push(step, value);
        series
    }

    /// Adds a point of a later step.
    pub(super) fn push(&mut self, step: f64, value: f64) {
        self.last = value;
        self.greatest = self.greatest.max(value);
        if value < self.least.0 {
            self.least = (value, step);
        }
        let point = Group { points: 1, steps: step, sum: value, min: value, max: value };
        match self.groups.last_mut() {
            Some(group) if group.points < self.width => group.add(&point),
            _ => self.groups.push(point),
        }
        if self.groups.len() == GROUPS && self.groups[GROUPS - 1].points == self.width {
            let pair = |pair: &[Group]| {
                let mut sum = pair[0];
                pair[1..].iter().for_each(|group| sum.add(group));
                sum
            };
            self.groups = self.groups.chunks(2).map(pair).collect();
            self.width *= 2;
        }
    }

    /// Whether no point was merged with another.
    pub(super) fn is_whole(&self) -> bool {
        self.width == 1
    }

    /// Its groups.
    pub(super) fn points(&self) -> impl ExactSizeIterator<Item = Point> {
        self.groups.iter().map(|group| {
            let points = group.points as f64;
            Point {
                step: group.steps / points,
                mean: group.sum / points,
                min: group.min,
                max: group.max,
            }
        })
    }

    /// The means under a bell of a `part` of the length, so that a trend is seen where values scatter.
    pub(super) fn smooth(&self, part: f64) -> Vec<(f64, f64)> {
        let sigma = self.groups.len() as f64 * part;
        let reach = (3.0 * sigma) as usize;
        let points: Vec<_> = self.points().collect();
        let bell = |i: usize| {
            let (mut sum, mut weights) = (0.0, 0.0);
            let range = i.saturating_sub(reach)..(i + reach + 1).min(points.len());
            for j in range {
                let distance = (j as f64 - i as f64) / sigma.max(1e-9);
                let weight = (-0.5 * distance * distance).exp() * self.groups[j].points as f64;
                sum += weight * points[j].mean;
                weights += weight;
            }
            (points[i].step, sum / weights)
        };
        (0..points.len()).map(bell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Series {
        let mut values = values.into_iter().enumerate();
        let (_, first) = values.next().unwrap();
        let mut series = Series::new(0.0, first);
        values.for_each(|(step, value)| series.push(step as f64, value));
        series
    }

    #[test]
    fn a_long_run_takes_no_more_than_a_short_one() {
        let series = of((0..100_000).map(|i| f64::from(i % 10)));
        let points: Vec<_> = series.points().collect();
        assert!(!series.is_whole() && (GROUPS / 2..GROUPS).contains(&points.len()));
        assert_eq!((series.first, series.last, series.least), (0.0, 9.0, (0.0, 0.0)));
        assert!(points.iter().all(|point| (point.mean - 4.5).abs() < 0.2));
        assert!(points.iter().all(|point| (point.min, point.max) == (0.0, 9.0)));
        assert!(points.windows(2).all(|pair| pair[0].step < pair[1].step));
        let short = of([3.0, 1.0, 2.0]);
        assert!(short.is_whole());
        assert_eq!(short.points().map(|point| point.mean).collect::<Vec<_>>(), [3.0, 1.0, 2.0]);
        assert_eq!(short.least, (1.0, 1.0));
    }

    #[test]
    fn smoothing_keeps_a_level_and_takes_the_noise() {
        let noisy = of((0..500).map(|i| if i % 2 == 0 { 1.0 } else { 3.0 }));
        let smooth = noisy.smooth(0.02);
        assert_eq!(smooth.len(), 500);
        // The bell is cut at three standard deviations: of alternating values 3.8e-4 are left.
        assert!(smooth[50..450].iter().all(|(_, value)| (value - 2.0).abs() < 4e-4));
        assert_eq!(of([5.0]).smooth(0.02), [(0.0, 5.0)]);
    }
}
