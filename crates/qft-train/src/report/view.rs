//! The live view of a run: what it shows, laid out for the width of a terminal.
//!
//! Every figure has a place of its own, as wide as the figure may become, so that nothing moves while numbers change.

use super::bar::duration;
use crate::memory::gb;
use crate::run::StepMetrics;
use std::collections::VecDeque;
use std::time::Duration;

/// Steps whose mean loss is shown, and compared with that of as many before them.
const WINDOW: usize = 20;

/// A change of the loss that is none, as a fraction of it.
const FLAT: f64 = 0.002;

/// Columns of the bar, if there is room.
const BAR: usize = 40;

/// What is shown of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Steps of the whole run.
    pub(super) steps: u64,
    /// Losses of the last steps, the newest last.
    losses: VecDeque<f64>,
    /// The last step.
    pub(super) last: Option<StepMetrics>,
    /// The held-out loss that was found last.
    pub(super) held_out: Option<f64>,
    /// Time that the rest will take.
    pub(super) eta_seconds: f64,
    /// When the next checkpoint is saved.
    pub(super) checkpoint: Next,
}

/// When the next checkpoint is saved.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) enum Next {
    /// After so many steps.
    Steps(u64),
    /// After that time.
    Time(Duration),
    /// At the end.
    #[default]
    AtTheEnd,
}

impl View {
    /// Of a run of `steps` steps.
    pub(super) fn new(steps: u64) -> Self {
        Self { steps, ..Self::default() }
    }

    /// Takes up what a step did.
    pub(super) fn step(&mut self, metrics: &StepMetrics) {
        self.losses.push_back(metrics.loss);
        if self.losses.len() > 2 * WINDOW {
            self.losses.pop_front();
        }
        self.last = Some(*metrics);
    }

    /// The mean loss of the last steps, and where it goes: down, up, or neither.
    fn loss(&self) -> (f64, char) {
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let losses: Vec<f64> = self.losses.iter().copied().collect();
        let (before, now) = losses.split_at(losses.len() / 2);
        let shown = mean(&losses[losses.len().saturating_sub(WINDOW)..]);
        let change = mean(now) - mean(before);
        let trend = match change / mean(before).abs() {
            _ if before.is_empty() => ' ',
            change if change < -FLAT => '↓',
            change if change > FLAT => '↑',
            _ => '→',
        };
        (shown, trend)
    }

    /// The view in lines of less than `columns` characters.
    pub(super) fn lines(&self, columns: usize) -> Vec<String> {
        let Some(last) = &self.last else { return Vec::new() };
        let room = columns.saturating_sub(1);
        let (loss, trend) = self.loss();
        let mut cells = vec![
            format!("loss {loss:>7.4} {trend}"),
            format!("lr {:>7}", format!("{:.1e}", last.lr)),
            format!("{:>7.0} tok/s", last.positions_per_second),
            format!("{:>8}", gb(last.peak_bytes)),
        ];
        if let Some(loss) = self.held_out {
            cells.insert(1, format!("held-out {loss:>7.4}"));
        }
        if let Some(light) = last.speed_of_light {
            cells.push(format!("{:>5.1} % of the INT8 rate", light * 100.0));
        }
        cells.push(match self.checkpoint {
            Next::Steps(1) => format!("checkpoint in {:<10}", "1 step"),
            Next::Steps(steps) => format!("checkpoint in {:<10}", format!("{steps} steps")),
            Next::Time(time) => format!("checkpoint in {:<10}", duration(time.as_secs_f64())),
            Next::AtTheEnd => "checkpoint at the end".to_owned(),
        });
        let mut lines = vec![self.head(last.step, room)];
        let mut line = String::new();
        for cell in cells {
            let more = cell.chars().count() + if line.is_empty() { 0 } else { 3 };
            if !line.is_empty() && line.chars().count() + more > room {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push_str("   ");
            }
            line.push_str(&cell);
        }
        lines.push(line);
        let cut = |line: String| line.chars().take(room).collect();
        lines.into_iter().map(cut).collect()
    }

    /// The bar, and how far it is.
    fn head(&self, step: u64, room: usize) -> String {
        let (steps, width) = (self.steps.max(1), self.steps.to_string().len());
        let done = step.min(steps) as f64 / steps as f64;
        let percent = (done * 100.0).floor();
        let eta = duration(self.eta_seconds);
        let text = format!("{step:>width$}/{steps}  {percent:>3.0} %   ETA {eta:>7}");
        let bar = BAR.min(room.saturating_sub(text.chars().count() + 2));
        let full = (done * bar as f64).floor() as usize;
        format!("{}{}  {text}", "█".repeat(full), "░".repeat(bar - full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(step: u64, loss: f64) -> StepMetrics {
        StepMetrics {
            step,
            loss,
            accuracy: 0.5,
            lr: 1e-5,
            tokens: 100,
            tokens_per_second: 600.0,
            positions: 200,
            positions_per_second: 1234.4,
            peak_bytes: 3_000_000_000,
            grad_norm: None,
            rescaled_rows: 0,
            speed_of_light: Some(0.4567),
            diagnostics: None,
            exchange: None,
        }
    }

    fn view(step: u64) -> View {
        let mut view = View::new(300);
        (1..=step).for_each(|step| view.step(&metrics(step, 3.0 - 0.005 * step as f64)));
        view.held_out = Some(2.41);
        view.eta_seconds = 125.0;
        view.checkpoint = Next::Steps(30);
        view
    }

    #[test]
    fn everything_fits_into_60_and_200_columns() {
        let narrow = view(120).lines(60);
        let bar = format!("{}{}", "█".repeat(11), "░".repeat(18));
        assert_eq!(
            narrow,
            [
                &format!("{bar}  120/300   40 %   ETA   2m05s"),
                "loss  2.4475 ↓   held-out  2.4100   lr  1.0e-5",
                "   1234 tok/s    3.00 GB    45.7 % of the INT8 rate",
                "checkpoint in 30 steps  ",
            ]
        );
        let wide = view(120).lines(200);
        assert_eq!(wide.len(), 2, "{wide:#?}");
        for columns in [1, 2, 10, 40, 60, 80, 200, 10_000] {
            let lines = view(120).lines(columns);
            assert!(
                lines.iter().all(|line| line.chars().count() < columns),
                "{columns}: {lines:#?}"
            );
        }
    }

    #[test]
    fn nothing_moves_while_numbers_change() {
        let places = |view: &View, columns| -> Vec<(usize, usize)> {
            let lines = view.lines(columns);
            let of = |word| {
                let place = |line: &String| Some(line[..line.find(word)?].chars().count());
                lines.iter().enumerate().find_map(|(row, line)| Some((row, place(line)?))).unwrap()
            };
            ["/300", "%", "ETA", "loss", "held-out", "lr", "tok/s", "B ", "of the", "check"]
                .map(of)
                .into()
        };
        for columns in [60, 200] {
            let expected = places(&view(120), columns);
            let mut other = view(7);
            other.held_out = Some(11.25);
            (other.eta_seconds, other.checkpoint) = (7380.0, Next::Time(Duration::from_secs(59)));
            let fast = StepMetrics {
                positions_per_second: 54_321.0,
                peak_bytes: 41_000_000,
                ..metrics(8, 12.5)
            };
            other.step(&StepMetrics { speed_of_light: Some(0.05), lr: 3.5e-6, ..fast });
            assert_eq!(places(&other, columns), expected, "{:#?}", other.lines(columns));
        }
    }

    #[test]
    fn a_trend_is_that_of_many_steps() {
        let trend = |loss: fn(u64) -> f64, steps: u64| {
            let mut view = View::new(100);
            (1..=steps).for_each(|step| view.step(&metrics(step, loss(step))));
            view.loss().1
        };
        assert_eq!(trend(|_| 2.0, 1), ' ');
        assert_eq!(trend(|_| 2.0, 90), '→');
        assert_eq!(trend(|step| 2.0 + (step % 2) as f64, 90), '→');
        assert_eq!(trend(|step| 3.0 - step as f64 * 0.01, 90), '↓');
        assert_eq!(trend(|step| 1.0 + step as f64 * 0.01, 90), '↑');
    }

    #[test]
    fn before_the_first_step_there_is_nothing_to_show() {
        assert!(View::new(3).lines(80).is_empty());
        let next = |next| View { checkpoint: next, ..view(3) }.lines(200).concat();
        assert!(next(Next::AtTheEnd).contains("checkpoint at the end"));
        assert!(next(Next::Steps(1)).contains("in 1 step "));
        assert!(next(Next::Time(Duration::from_secs(75))).contains("in 1m15s"));
    }
}
