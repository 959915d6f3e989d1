//! Memory that is free goes back: buffers that are kept for later half of them at a time, tables and the heap when much
//! was freed and is not needed again at once.

use super::Worker;
use crate::log;
use crate::memory::{MemoryLevel, Shrink};
use crate::net::trim_heap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Looks at memory between two times that half of the spare buffers is given back: 2 s.
const CHECKS_PER_TRIM: u32 = 8;

/// Bytes of spare buffers that a worker without anything to do keeps.
const MIN_SPARE: usize = 1 << 20;

/// What a connection costs, about: its slot, its state, TLS. Too much does no harm: the heap is trimmed sooner.
const CONNECTION_COST: usize = 4 << 10;

/// The heap is trimmed once in so long at most, by whichever worker has freed much: all others may wait for it meanwhile.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);

/// What a worker knows of the memory in use.
#[derive(Debug, Default)]
pub(super) struct Trimming {
    level: MemoryLevel,
    checks: u32,
    /// The heap is to be trimmed as soon as it may.
    is_due: bool,
}

impl Worker {
    /// Whether memory is to be looked at although nothing happens.
    pub(super) fn must_check_memory(&self) -> bool {
        let Trimming { level, is_due, .. } = &self.trimming;
        *is_due || level.may_fall() || self.spare_bytes() > MIN_SPARE
    }

    fn spare_bytes(&self) -> usize {
        self.ctx.writer.spare_bytes() + self.ctx.hub.batch_log.spare_bytes()
    }

    /// Bytes in use, about.
    fn footprint(&self) -> u64 {
        let held = self.ctx.count().held_bytes.get();
        let tables = self.ctx.hub.footprint() + self.slots.len() * CONNECTION_COST;
        held + (tables + self.ctx.writer.spare_bytes()) as u64
    }

    /// Looks at how much memory is in use, and gives back what is free.
    pub(super) fn check_memory(&mut self) {
        self.trimming.checks += 1;
        if self.trimming.checks >= CHECKS_PER_TRIM {
            self.trimming.checks = 0;
            self.ctx.writer.trim();
            if self.ctx.hub.batch_log.is_empty() {
                self.ctx.hub.trim();
            }
        }
        let footprint = self.footprint();
        if self.trimming.level.record(footprint) {
            self.shrink();
            self.trimming.is_due = self.settings.trim_heap;
        }
        if self.trimming.is_due && self.claim_trim() {
            self.trimming.is_due = false;
            let began = Instant::now();
            trim_heap();
            log::line!(debug, "worker {} trimmed the heap in {:.1?}", self.ctx.worker, began.elapsed());
        }
    }

    fn shrink(&mut self) {
        let Self { slots, ctx, scheduled_reads, dirty, closed_slots, .. } = self;
        slots.shrink();
        ctx.hub.shrink();
        ctx.rate_states.truncate(slots.capacity());
        ctx.rate_states.shrink();
        ctx.congested.shrink();
        for list in [scheduled_reads, dirty, closed_slots] {
            list.shrink();
        }
    }

    /// Whether no worker has trimmed the heap for a while. Then this one does.
    fn claim_trim(&self) -> bool {
        let now = self.iteration_start.as_millis() as u64;
        let trimmed = &self.settings.trimmed;
        let last = trimmed.load(Ordering::Relaxed);
        let exceeds_work = last == 0 || now >= last + TRIM_INTERVAL.as_millis() as u64;
        exceeds_work
            && trimmed.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
