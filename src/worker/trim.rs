//! Freeing unused memory: half of the spare buffers at a time; tables and the heap when much was freed and is not
//! needed again.

use super::Worker;
use crate::log;
use crate::memory::{MemoryLevel, Shrink};
use crate::net::trim_heap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Checks of memory between two times that half of the spare buffers is freed: 2 s.
const CHECKS_PER_TRIM: u32 = 8;

/// Bytes of spare buffers that an idle worker keeps.
const MIN_SPARE: usize = 1 << 20;

/// The estimated memory of a connection: its slot, its state, TLS. An estimate too high only trims the heap sooner.
const CONNECTION_COST: usize = 4 << 10;

/// The heap is trimmed at most once in this time, by the first worker that has freed much: all workers may wait for it.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);

/// What a worker knows about memory in use.
#[derive(Debug, Default)]
pub(super) struct Trimming {
    level: MemoryLevel,
    checks: u32,
    /// The heap must be trimmed as soon as allowed.
    is_due: bool,
}

impl Worker {
    /// Returns whether memory must be checked although nothing happens.
    pub(super) fn must_check_memory(&self) -> bool {
        let Trimming { level, is_due, .. } = &self.trimming;
        *is_due || level.may_fall() || self.spare_bytes() > MIN_SPARE
    }

    fn spare_bytes(&self) -> usize {
        self.ctx.writer.spare_bytes() + self.ctx.hub.batch_log.spare_bytes()
    }

    /// Returns the estimated bytes in use.
    fn footprint(&self) -> u64 {
        let held = self.ctx.count().held_bytes.get();
        let tables = self.ctx.hub.footprint() + self.slots.len() * CONNECTION_COST;
        held + (tables + self.ctx.writer.spare_bytes()) as u64
    }

    /// Checks how much memory is in use, and frees what is not.
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

    /// Claims the next trim of the heap, if no worker has trimmed it for a while.
    fn claim_trim(&self) -> bool {
        let now = self.iteration_start.as_millis() as u64;
        let trimmed = &self.settings.trimmed;
        let last = trimmed.load(Ordering::Relaxed);
        let exceeds_work = last == 0 || now >= last + TRIM_INTERVAL.as_millis() as u64;
        exceeds_work
            && trimmed.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
