//! The tables, as one text for SQLite and PostgreSQL. A step that is out in the field is never
//! changed; the next one is appended.
//!
//! Identities are texts that this server draws (`store::new_id`), moments are texts of RFC 3339 in
//! UTC with milliseconds, which sort as they follow each other; yes and no are 1 and 0. What a
//! device said is kept as it said it. Of a secret there is only its SHA-256.

/// One step after the other; each is a list of statements.
pub(super) const STEPS: &[&[&str]] =
    &[FIRST, PLOTS_AND_SIGNERS, SAID_AGAIN, OFFERED_PATCHES, LAST_HEARD];

const FIRST: &[&str] = &[
    "CREATE TABLE release (
        id TEXT PRIMARY KEY,
        system TEXT NOT NULL,
        version TEXT NOT NULL,
        number BIGINT NOT NULL,
        sequence BIGINT NOT NULL,
        epoch BIGINT NOT NULL,
        bundle_sha256 TEXT NOT NULL UNIQUE,
        bundle_bytes BIGINT NOT NULL,
        manifest TEXT NOT NULL,
        signatures BIGINT NOT NULL,
        places TEXT NOT NULL,
        description TEXT NOT NULL,
        uploaded_at TEXT NOT NULL,
        uploaded_by TEXT NOT NULL,
        withdrawn_at TEXT
    )",
    "CREATE INDEX release_by_number ON release (system, number)",
    "CREATE TABLE fleet_group (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        labels TEXT NOT NULL,
        zone TEXT NOT NULL,
        hours TEXT NOT NULL,
        mode TEXT NOT NULL,
        lead TEXT NOT NULL,
        credential_hash TEXT NOT NULL UNIQUE,
        enrolled_at TEXT NOT NULL,
        seen_at TEXT,
        system TEXT,
        number BIGINT NOT NULL,
        phase TEXT NOT NULL,
        attention TEXT NOT NULL,
        documents TEXT NOT NULL,
        offer_answer TEXT,
        open_rollout TEXT,
        open_since TEXT
    )",
    "CREATE INDEX fleet_group_by_number ON fleet_group (number)",
    "CREATE INDEX fleet_group_by_attention ON fleet_group (attention)",
    "CREATE TABLE device (
        fleet_group TEXT NOT NULL,
        id TEXT NOT NULL,
        role TEXT NOT NULL,
        is_lead BIGINT NOT NULL,
        number BIGINT NOT NULL,
        image TEXT NOT NULL,
        is_linked BIGINT NOT NULL,
        PRIMARY KEY (fleet_group, id)
    )",
    "CREATE TABLE past_rollout (
        fleet_group TEXT NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        verdict TEXT NOT NULL,
        cause TEXT NOT NULL,
        why TEXT NOT NULL,
        number BIGINT NOT NULL,
        number_before BIGINT NOT NULL,
        began_at TEXT,
        told_at TEXT NOT NULL,
        PRIMARY KEY (fleet_group, id)
    )",
    "CREATE INDEX past_rollout_by_time ON past_rollout (told_at)",
    "CREATE TABLE campaign (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        release TEXT NOT NULL,
        state TEXT NOT NULL,
        why TEXT NOT NULL,
        failures_max BIGINT NOT NULL,
        not_before TEXT,
        waves TEXT NOT NULL,
        made_at TEXT NOT NULL,
        made_by TEXT NOT NULL,
        ended_at TEXT,
        revision BIGINT NOT NULL
    )",
    "CREATE INDEX campaign_by_state ON campaign (state)",
    "CREATE TABLE campaign_group (
        campaign TEXT NOT NULL,
        fleet_group TEXT NOT NULL,
        wave BIGINT NOT NULL,
        standing TEXT NOT NULL,
        since TEXT NOT NULL,
        cause TEXT NOT NULL,
        number_before BIGINT NOT NULL,
        offer TEXT,
        step_release TEXT,
        rollout TEXT,
        PRIMARY KEY (campaign, fleet_group)
    )",
    "CREATE INDEX campaign_group_by_group ON campaign_group (fleet_group)",
    "CREATE INDEX campaign_group_by_standing ON campaign_group (campaign, standing)",
    "CREATE TABLE group_order (
        id TEXT PRIMARY KEY,
        fleet_group TEXT NOT NULL,
        what TEXT NOT NULL,
        made_at TEXT NOT NULL,
        made_by TEXT NOT NULL,
        answered_at TEXT,
        answer TEXT NOT NULL
    )",
    "CREATE INDEX group_order_by_group ON group_order (fleet_group)",
    "CREATE TABLE group_event (
        id TEXT PRIMARY KEY,
        fleet_group TEXT NOT NULL,
        at TEXT NOT NULL,
        level TEXT NOT NULL,
        kind TEXT NOT NULL,
        said TEXT NOT NULL
    )",
    "CREATE INDEX group_event_by_time ON group_event (fleet_group, at)",
    "CREATE TABLE enrolment (
        token_hash TEXT PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        labels TEXT NOT NULL,
        zone TEXT NOT NULL,
        fleet_group TEXT,
        made_at TEXT NOT NULL,
        made_by TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        used_at TEXT,
        used_by TEXT
    )",
    "CREATE TABLE person (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL,
        password TEXT NOT NULL,
        made_at TEXT NOT NULL
    )",
    "CREATE TABLE session (
        token_hash TEXT PRIMARY KEY,
        person TEXT NOT NULL,
        made_at TEXT NOT NULL,
        expires_at TEXT NOT NULL
    )",
    "CREATE TABLE access_token (
        id TEXT PRIMARY KEY,
        token_hash TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        made_at TEXT NOT NULL,
        made_by TEXT NOT NULL,
        expires_at TEXT,
        used_at TEXT
    )",
    "CREATE TABLE audit (
        id TEXT PRIMARY KEY,
        at TEXT NOT NULL,
        who TEXT NOT NULL,
        did TEXT NOT NULL,
        about TEXT NOT NULL,
        detail TEXT NOT NULL
    )",
    "CREATE INDEX audit_by_time ON audit (at)",
    "CREATE TABLE setting (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    )",
];

/// Which release a group went to and when, for plots; who signed a release; codes of refusals. What
/// was there before has none of it.
const PLOTS_AND_SIGNERS: &[&str] = &[
    "CREATE TABLE adoption (
        fleet_group TEXT NOT NULL,
        at TEXT NOT NULL,
        number_before BIGINT,
        number BIGINT
    )",
    "CREATE INDEX adoption_by_time ON adoption (at)",
    "ALTER TABLE fleet_group ADD COLUMN settled_number BIGINT",
    "ALTER TABLE fleet_group ADD COLUMN offer_codes TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE campaign_group ADD COLUMN code TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE past_rollout ADD COLUMN disagreed_s BIGINT",
    "CREATE INDEX past_rollout_by_number ON past_rollout (number, told_at)",
    "ALTER TABLE release ADD COLUMN signers TEXT NOT NULL DEFAULT '[]'",
];

/// What each lead said last, so that every server knows what it says again; what happened in a
/// group, in its order.
const SAID_AGAIN: &[&str] = &[
    "ALTER TABLE fleet_group ADD COLUMN gist BIGINT",
    "ALTER TABLE fleet_group ADD COLUMN line_boot BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE fleet_group ADD COLUMN line_seq BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX group_event_by_id ON group_event (fleet_group, id)",
];

/// Which patches are in the bundle of an offer: chosen once, since a bundle that changed while a
/// lead fetches it would be of no use to it.
const OFFERED_PATCHES: &[&str] = &["CREATE TABLE offer_patches (
        offer TEXT PRIMARY KEY,
        patches TEXT NOT NULL
    )"];

/// The image that each device was last heard to run, for as long as its lead does not hear it.
const LAST_HEARD: &[&str] = &[
    "ALTER TABLE device ADD COLUMN ran TEXT NOT NULL DEFAULT ''",
    "UPDATE device SET ran = image",
];
