//! What was measured, as a table for people and as JSON for programs.

use serde::Serialize;

/// What a ratio must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// No more than twice the reference and this much.
    TwiceAnd(f64),
}

/// One comparison: the same thing measured on both sides, round by round.
#[derive(Debug)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    goal: Goal,
    rounds: Vec<Round>,
}

/// What one round measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) ours: f64,
    pub(crate) reference: f64,
}

#[derive(Serialize)]
struct Summary<'a> {
    name: &'a str,
    ours: f64,
    reference: f64,
    unit: &'static str,
    ratio: f64,
    min: f64,
    max: f64,
    goal: f64,
    pass: bool,
}

impl Figure {
    pub(crate) fn new(name: String, unit: &'static str, goal: Goal) -> Self {
        Self { name, unit, goal, rounds: Vec::new() }
    }

    pub(crate) fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// Whether the median of the ratios reaches the goal.
    pub(crate) fn passes(&self) -> bool {
        self.summary().pass
    }

    fn summary(&self) -> Summary<'_> {
        let of = |value: fn(&Round) -> f64| sorted(self.rounds.iter().map(value));
        let ratios = of(|round| round.ours / round.reference);
        let ratio = median(&ratios);
        let (goal, pass) = match self.goal {
            Goal::AtLeast(goal) => (goal, ratio >= goal),
            Goal::AtMost(goal) => (goal, ratio <= goal),
            Goal::TwiceAnd(more) => {
                let goal = 2.0 + more / median(&of(|round| round.reference));
                (goal, ratio <= goal)
            }
        };
        Summary {
            name: &self.name,
            ours: median(&of(|round| round.ours)),
            reference: median(&of(|round| round.reference)),
            unit: self.unit,
            ratio,
            min: ratios.first().copied().unwrap_or(f64::NAN),
            max: ratios.last().copied().unwrap_or(f64::NAN),
            goal,
            pass,
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of sorted values; of an even number, the mean of the middle two.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted {
        [] => f64::NAN,
        _ if sorted.len().is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// One object per line and figure.
pub(crate) fn print_json(figures: &[Figure]) -> serde_json::Result<()> {
    for figure in figures {
        println!("{}", serde_json::to_string(&figure.summary())?);
    }
    Ok(())
}

/// One line per figure.
pub(crate) fn print_table(figures: &[Figure]) {
    let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    println!(
        "{:width$}  {:>10}  {:>10}  {:8}  {:>5}  {:^11}  {:>7}",
        "figure", "ours", "reference", "unit", "ratio", "range", "goal"
    );
    for figure in figures {
        let Summary { name, ours, reference, unit, ratio, min, max, goal, pass } = figure.summary();
        let sign = match figure.goal {
            Goal::AtLeast(_) => '≥',
            Goal::AtMost(_) | Goal::TwiceAnd(_) => '≤',
        };
        let verdict = if pass { "pass" } else { "FAIL" };
        println!(
            "{name:width$}  {ours:>10.1}  {reference:>10.1}  {unit:8}  {ratio:>5.2}  {min:.2} – {max:.2}  {sign} {goal:>5.2}  {verdict}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(goal: Goal, rounds: &[(f64, f64)], expected: (f64, f64, f64, bool)) {
        let mut figure = Figure::new("name".to_owned(), "1/s", goal);
        for &(ours, reference) in rounds {
            figure.add(Round { ours, reference });
        }
        let Summary { ratio, min, max, pass, .. } = figure.summary();
        assert_eq!((ratio, min, max, pass), expected);
    }

    #[test]
    fn the_result_is_the_median_of_the_ratios_not_the_ratio_of_the_medians() {
        let rounds = [(1.0, 2.0), (30.0, 10.0), (4.0, 4.0)];
        check(Goal::AtLeast(1.0), &rounds, (1.0, 0.5, 3.0, true));
        check(Goal::AtLeast(1.1), &rounds, (1.0, 0.5, 3.0, false));
    }

    #[test]
    fn a_goal_with_an_allowance_is_shown_as_the_ratio_it_allows() {
        let allowed = Figure {
            rounds: vec![Round { ours: 29.0, reference: 10.0 }],
            ..Figure::new("name".to_owned(), "ms", Goal::TwiceAnd(10.0))
        };
        assert_eq!((allowed.summary().goal, allowed.passes()), (3.0, true));
        check(Goal::TwiceAnd(10.0), &[(31.0, 10.0)], (3.1, 3.1, 3.1, false));
    }

    #[test]
    fn an_upper_goal_is_not_exceeded() {
        let rounds = [(1.0, 1.0), (2.0, 1.0)];
        check(Goal::AtMost(1.5), &rounds, (1.5, 1.0, 2.0, true));
        check(Goal::AtMost(1.4), &rounds, (1.5, 1.0, 2.0, false));
    }
}
