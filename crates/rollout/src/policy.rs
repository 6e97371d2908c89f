//! How long a rollout waits for what, and how often it tries: every limit of the conducting side,
//! by name. All times are milliseconds of the lead's time since boot.

use lockstep_proto::compat::Rule;
use lockstep_proto::frame::order::Terms;

/// The limits of one rollout. They do not travel and are not stored: a lead with newer firmware
/// may continue a rollout with other limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A member that has not answered `Inspect` by then is unreachable.
    pub preflight_ms: u64,
    /// What is still missing is said again after this.
    pub resend_ms: u64,
    /// Members in a phase that waits for them are asked for a report this often; it also renews
    /// their leases.
    pub poll_ms: u64,
    /// Staging ends in a revert when nothing at all arrived anywhere for so long.
    pub staging_idle_ms: u64,
    /// Staging ends in a revert after so long in any case.
    pub staging_limit_ms: u64,
    /// A rollout that is held ends in a revert after so long.
    pub hold_limit_ms: u64,
    /// An application that does not come to rest by then ends the rollout.
    pub rest_limit_ms: u64,
    /// Countdown from the first `Fire` to the activation.
    pub fire_lead_ms: u64,
    /// `Fire` is repeated this often while it counts down.
    pub fire_every_ms: u64,
    /// The longest boot of a member, with finding its radio channel again.
    pub boot_limit_ms: u64,
    /// A member that was silent for so long while settling is a debt, served when it is heard.
    pub unreachable_ms: u64,
    /// Wait before activating a member again that fell back after the verdict; doubles each time
    /// up to sixteen-fold.
    pub backoff_ms: u64,
    /// A member that fell back so often after the verdict makes the lead open a repair.
    pub reactivations_max: u8,
    /// So many restarts of the lead within one phase end it like its deadline.
    pub restarts_max: u8,
    /// Applies when the manifest names no `health_check_timeout_seconds`.
    pub trial_limit_ms: u32,
    /// What members are given: see [`Terms`]. The trial limit comes from the manifest.
    pub lease_ms: u32,
    /// See [`Terms::rest_lease_ms`].
    pub rest_lease_ms: u32,
    /// A member with less free heap than this is not asked to stage.
    pub free_heap_bytes_min: u32,
    /// A member whose link loses more than this share is not asked to stage, in percent.
    pub link_loss_percent_max: u8,
    /// How versions are compared; the one-sided rule is for groups with fielded firmware.
    pub rule: Rule,
}

impl Policy {
    /// For chips: a boot takes seconds, a channel scan too.
    pub const fn board() -> Self {
        Self {
            preflight_ms: 5_000,
            resend_ms: 500,
            poll_ms: 1_000,
            staging_idle_ms: 120_000,
            staging_limit_ms: 3_600_000,
            hold_limit_ms: 7 * 24 * 3_600_000,
            rest_limit_ms: 60_000,
            fire_lead_ms: 500,
            fire_every_ms: 50,
            boot_limit_ms: 30_000,
            unreachable_ms: 90_000,
            backoff_ms: 5_000,
            reactivations_max: 3,
            restarts_max: 5,
            trial_limit_ms: 60_000,
            lease_ms: 90_000,
            rest_lease_ms: 60_000,
            free_heap_bytes_min: 16 * 1024,
            link_loss_percent_max: 60,
            rule: Rule::BothWays,
        }
    }

    /// For desk devices: they boot in a fraction of a second and share one table.
    pub const fn desk() -> Self {
        Self {
            preflight_ms: 3_000,
            resend_ms: 200,
            poll_ms: 250,
            staging_idle_ms: 60_000,
            rest_limit_ms: 5_000,
            fire_lead_ms: 300,
            fire_every_ms: 40,
            boot_limit_ms: 5_000,
            unreachable_ms: 10_000,
            backoff_ms: 500,
            trial_limit_ms: 5_000,
            lease_ms: 12_000,
            rest_lease_ms: 8_000,
            ..Self::board()
        }
    }

    /// The terms that members are given for a trial limit in milliseconds.
    pub const fn terms(&self, trial_limit_ms: u32) -> Terms {
        Terms { lease_ms: self.lease_ms, trial_limit_ms, rest_lease_ms: self.rest_lease_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_desk_waits_for_less_than_a_board_in_everything() {
        let (desk, board) = (Policy::desk(), Policy::board());
        let waits = |policy: &Policy| {
            [
                policy.preflight_ms,
                policy.resend_ms,
                policy.poll_ms,
                policy.staging_idle_ms,
                policy.rest_limit_ms,
                policy.fire_lead_ms,
                policy.fire_every_ms,
                policy.boot_limit_ms,
                policy.unreachable_ms,
                policy.backoff_ms,
                policy.trial_limit_ms.into(),
                policy.lease_ms.into(),
                policy.rest_lease_ms.into(),
            ]
        };
        for (index, (desk, board)) in waits(&desk).into_iter().zip(waits(&board)).enumerate() {
            assert!(desk < board, "wait {index}: {desk} ms on a desk, {board} ms on a board");
        }
    }

    #[test]
    fn a_rollout_that_is_held_waits_for_a_week() {
        assert_eq!(Policy::board().hold_limit_ms, 604_800_000);
        assert_eq!(Policy::desk().hold_limit_ms, 604_800_000);
    }
}
