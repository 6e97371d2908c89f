//! A server that is reached by TLS: who is believed, and what is still answered in plain.

use std::fs;

use super::server::Fleet;

const TLS: &str = "--tls-listen 127.0.0.1:0";

#[test]
fn people_come_by_tls_and_a_pair_in_plain_and_a_release_reaches_it() {
    let fleet = Fleet::with(TLS);
    assert!(fleet.url().starts_with("https://127.0.0.1:"), "{}", fleet.url());
    let desk = fleet.pair();
    let images = fleet.publish(&desk, "1.1.0");
    let campaign = fleet.campaign("1.1.0");
    fleet.wait_standing(&desk, &campaign, "kept");
    desk.assert_runs(&images);
}

#[test]
fn a_server_is_believed_by_its_authority_alone() {
    let fleet = Fleet::with(TLS);
    let url = fleet.url();
    let login = format!("login {url} --name ada --password-file password");
    // This machine has never heard of the authority.
    fleet.operator(&login).fails().says("is not believed").says("--ca-sha256");
    let wrong = "0A:".repeat(31) + "0A";
    let said = fleet.operator(&format!("{login} --ca-sha256 {wrong}"));
    said.fails().says("shows an authority with the fingerprint");
    fleet.operator(&format!("{login} --ca-sha256 0A")).says("is no fingerprint");
    fleet.operator(&format!("{login} --ca data/tls/ca.pem")).succeeds().says("as ada, admin");
    fleet.operator("group list").succeeds();
    // What was signed in to is still believed when another file is no authority at all.
    fleet.operator("group list --ca password").fails().says("holds no certificate");
    let other = Fleet::with(TLS);
    fs::copy(other.path("data/tls/ca.pem"), fleet.path("other.pem")).unwrap();
    fleet.operator("group list --ca other.pem").fails().says("is not believed");
}

#[test]
fn a_password_is_not_taken_in_plain_where_there_is_tls() {
    let fleet = Fleet::with(TLS);
    let url = fleet.lead_url();
    let said = fleet.operator(&format!("login {url} --name ada --password-file password"));
    said.fails().says("this is asked by TLS alone");
    let said = fleet.operator(&format!("group list --server {url} --token abc"));
    said.fails().says("this is asked by TLS alone");
}

#[test]
fn a_bundle_from_nobody_is_refused_over_tls_in_the_servers_own_words() {
    let fleet = Fleet::with(TLS);
    let desk = fleet.pair();
    let (_, bundle) = desk.good_release("1.1.0", "");
    let path = desk.path(&bundle);
    let (path, url) = (path.display(), fleet.url());
    let said = fleet.operator(&format!("publish {path} --server {url} --token abc"));
    said.fails().says("token is not known");
    fleet.operator(&format!("publish {path}")).succeeds().says("Published");
}

#[test]
fn a_servers_authority_is_the_same_after_a_restart() {
    let mut fleet = Fleet::with(TLS);
    fleet.kill();
    fleet.switch_on();
    fleet.operator("group list").succeeds();
}
