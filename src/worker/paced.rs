//! Work that is bounded in each iteration of the event loop and continues in the next. Pure: time is an argument.

use core::time::Duration;
use std::collections::VecDeque;

/// How much of one kind of work an iteration does, in whatever unit its owner counts: nanoseconds, bytes, messages.
///
/// The first piece of an iteration is always allowed, so the work makes progress whatever a piece costs; an iteration
/// exceeds its budget by at most the last piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    limit: u64,
    spent: u64,
}

impl Budget {
    pub(crate) const fn new(limit: u64) -> Self {
        Self { limit, spent: 0 }
    }

    /// Makes a budget of time, counted in nanoseconds.
    pub(crate) const fn of_time(limit: Duration) -> Self {
        Self::new(limit.as_nanos() as u64)
    }

    /// Starts an iteration.
    pub(crate) fn renew(&mut self) {
        self.spent = 0;
    }

    /// Returns whether this iteration may begin another piece.
    pub(crate) fn has_room(&self) -> bool {
        self.spent == 0 || self.spent < self.limit
    }

    pub(crate) fn spend(&mut self, cost: u64) {
        // Even a free piece counts, or a queue of them would have no bound.
        self.spent = self.spent.saturating_add(cost.max(1));
    }

    pub(crate) fn spend_time(&mut self, cost: Duration) {
        self.spend(cost.as_nanos() as u64);
    }
}

/// A queue of work in order of arrival, of which each iteration takes as much as its budget allows.
#[derive(Debug)]
pub(crate) struct Paced<T> {
    waiting: VecDeque<T>,
    budget: Budget,
}

impl<T> Paced<T> {
    pub(crate) const fn new(budget: Budget) -> Self {
        Self { waiting: VecDeque::new(), budget }
    }

    pub(crate) fn push(&mut self, item: T) {
        self.waiting.push_back(item);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Starts an iteration.
    pub(crate) fn renew(&mut self) {
        self.budget.renew();
    }

    /// Takes the item that has waited longest; `None` if nothing waits or this iteration's budget is spent.
    pub(crate) fn take(&mut self) -> Option<T> {
        if !self.budget.has_room() {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Counts the cost of the item that was taken last.
    pub(crate) fn spend_time(&mut self, cost: Duration) {
        self.budget.spend_time(cost);
    }

    /// Frees the memory of a burst that is over.
    pub(crate) fn tidy(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > 1024 {
            self.waiting = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    /// Runs iterations until nothing waits: the items and the time of each.
    fn iterations(paced: &mut Paced<u32>, cost: impl Fn(u32) -> Duration) -> Vec<(Vec<u32>, Duration)> {
        let mut done = Vec::new();
        while !paced.is_empty() {
            paced.renew();
            let (mut items, mut time) = (Vec::new(), Duration::ZERO);
            while let Some(item) = paced.take() {
                items.push(item);
                time += cost(item);
                paced.spend_time(cost(item));
            }
            done.push((items, time));
        }
        done
    }

    #[test]
    fn work_above_the_budget_is_spread_over_iterations_in_order() {
        let mut paced = Paced::new(Budget::of_time(micros(2000)));
        (0..1000).for_each(|n| paced.push(n));
        let done = iterations(&mut paced, |_| micros(100));
        assert_eq!(done.len(), 50);
        assert!(done.iter().all(|(_, time)| *time == micros(2000)));
        assert!(done.into_iter().flat_map(|(items, _)| items).eq(0..1000));
    }

    #[test]
    fn a_piece_above_the_budget_is_processed_alone() {
        let mut paced = Paced::new(Budget::of_time(micros(2000)));
        (0..3).for_each(|n| paced.push(n));
        let done = iterations(&mut paced, |_| micros(5000));
        assert!(done.iter().map(|(items, _)| items.as_slice()).eq([&[0][..], &[1], &[2]]));
    }

    #[test]
    fn a_spent_budget_yields_nothing_until_the_next_iteration() {
        let mut paced = Paced::new(Budget::of_time(micros(10)));
        paced.push(1);
        paced.push(2);
        assert_eq!(paced.take(), Some(1));
        paced.spend_time(micros(10));
        assert_eq!(paced.take(), None);
        paced.renew();
        assert_eq!(paced.take(), Some(2));
        paced.tidy();
        assert_eq!(paced.take(), None);
    }

    proptest! {
        #[test]
        fn every_iteration_makes_progress_and_exceeds_its_budget_by_at_most_one_piece(
            limit in 0_u64..500,
            costs in prop::collection::vec(0_u64..1000, 1..100),
        ) {
            let mut paced = Paced::new(Budget::of_time(micros(limit)));
            (0..costs.len() as u32).for_each(|n| paced.push(n));
            let done = iterations(&mut paced, |n| micros(costs[n as usize]));
            for (items, time) in &done {
                let last = items.last().map(|n| micros(costs[*n as usize]));
                prop_assert!(last.is_some_and(|last| *time <= micros(limit) + last), "{items:?}");
            }
            prop_assert!(done.into_iter().flat_map(|(items, _)| items).eq(0..costs.len() as u32));
        }
    }
}
