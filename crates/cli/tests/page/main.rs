//! The page of a device and the console of a server, used as a person uses them: a real browser,
//! real desk devices, real files.
//!
//! A test looks at what stands on the page and at what the devices run afterwards, never at how the
//! page comes to it. Every wait has a limit. Where there is no Chromium, the tests say so and do
//! nothing; `cargo xtask test --suite page` installs it.

mod browser;
mod console;
#[expect(dead_code, unused_imports, reason = "the end-to-end tests use more of it")]
#[path = "../e2e/desk/mod.rs"]
mod desk;
mod files;
mod first_start;
mod groups;
mod looks;
mod older;
mod orders;
mod proxy;
mod refusals;
mod settings;
mod tour;
mod trouble;
mod update;
mod view;
