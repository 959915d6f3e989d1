//! Memory that is free goes back: buffers that are kept for later half of them at a time, tables and the heap when much
//! was freed and is not needed again at once.

use super::Worker;
use crate::log;
use crate::memory::{Level, Shrink};
use crate::net::trim_heap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Looks at memory between two times that half of the spare buffers is given back: 2 s.
const SPARE_LOOKS: u32 = 8;

/// Bytes of spare buffers that a worker without anything to do keeps.
const KEPT: usize = 1 << 20;

/// What a connection costs, about: its slot, its state, TLS. Too much does no harm: the heap is trimmed sooner.
const CONNECTION: usize = 4 << 10;

/// The heap is trimmed once in so long at most, by whichever worker has freed much: all others may wait for it meanwhile.
const GAP: Duration = Duration::from_secs(10);

/// What a worker knows of the memory in use.
#[derive(Debug, Default)]
pub(super) struct Trimming {
    level: Level,
    looks: u32,
    /// The heap is to be trimmed as soon as it may.
    is_due: bool,
}

impl Worker {
    /// Whether memory is to be looked at although nothing happens.
    pub(super) fn must_look_at_memory(&self) -> bool {
        let Trimming { level, is_due, .. } = &self.trimming;
        *is_due || level.may_fall() || self.spare_bytes() > KEPT
    }

    fn spare_bytes(&self) -> usize {
        self.turn.writer.spare_bytes() + self.turn.hub.batch_log.spare_bytes()
    }

    /// Bytes in use, about.
    fn footprint(&self) -> u64 {
        let held = self.turn.count().held_bytes.get();
        let tables = self.turn.hub.footprint() + self.slots.len() * CONNECTION;
        held + (tables + self.turn.writer.spare_bytes()) as u64
    }

    /// Looks at how much memory is in use, and gives back what is free.
    pub(super) fn look_at_memory(&mut self) {
        self.trimming.looks += 1;
        if self.trimming.looks >= SPARE_LOOKS {
            self.trimming.looks = 0;
            self.turn.writer.trim();
            if self.turn.hub.batch_log.is_empty() {
                self.turn.hub.trim();
            }
        }
        let footprint = self.footprint();
        if self.trimming.level.note(footprint) {
            self.shrink();
            self.trimming.is_due = self.settings.trim_heap;
        }
        if self.trimming.is_due && self.may_trim() {
            self.trimming.is_due = false;
            let began = Instant::now();
            trim_heap();
            log::line!(debug, "worker {} trimmed the heap in {:.1?}", self.turn.worker, began.elapsed());
        }
    }

    fn shrink(&mut self) {
        let Self { slots, turn, again, dirty, doomed, .. } = self;
        slots.shrink();
        turn.hub.shrink();
        turn.paid.truncate(slots.capacity());
        turn.paid.shrink();
        turn.held.shrink();
        for list in [again, dirty, doomed] {
            list.shrink();
        }
    }

    /// Whether no worker has trimmed the heap for a while. Then this one does.
    fn may_trim(&self) -> bool {
        let now = self.turned.as_millis() as u64;
        let trimmed = &self.settings.trimmed;
        let last = trimmed.load(Ordering::Relaxed);
        let is_over = last == 0 || now >= last + GAP.as_millis() as u64;
        is_over && trimmed.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
