//! Who gets in to the server, and with what.

use std::fs;

use serde_json::Value;

use super::server::Fleet;

#[test]
fn a_sign_in_is_kept_where_nobody_else_reads_it_until_it_is_forgotten() {
    let fleet = Fleet::new();
    let file = fleet.path("config/lockstep/servers.json");
    assert!(!fs::read_to_string(&file).unwrap().contains(super::server::PASSWORD));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fleet.operator("group list").succeeds();
    let known: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let token = known["servers"][0]["token"].as_str().unwrap().to_owned();
    let with = format!("group list --server {} --token {token}", fleet.url());
    fleet.operator(&with).succeeds();
    fleet.operator("logout").succeeds().says("Signed out of");
    // Whoever has copied it is let in no more.
    fleet.operator(&with).fails().says("token is not known");
    let said = fleet.operator("group list");
    assert_eq!(said.code, Some(2), "{}", said.text);
    said.says("lockstep login URL");
    let url = fleet.url();
    fleet.operator(&format!("group list --server {url}")).fails().says("does not know who asks");
}

#[test]
fn a_server_that_is_away_is_forgotten_all_the_same_and_it_is_said_what_stays() {
    let mut fleet = Fleet::new();
    fleet.kill();
    let said = fleet.operator("logout");
    said.succeeds().says("Forgot").says("stays good there until it expires");
    assert_eq!(fleet.operator("logout").code, Some(2), "none is known any more");
}

#[test]
fn a_wrong_password_and_a_used_setup_link_let_nobody_in() {
    let fleet = Fleet::new();
    let url = fleet.url();
    fs::write(fleet.path("wrong"), "another password").unwrap();
    let login = format!("login {url} --name ada --password-file");
    fleet.operator(&format!("{login} wrong")).fails().says("name or password is wrong");
    fleet.operator(&format!("{login} password --setup 00")).fails().says("refuses");
    fleet.operator(&format!("{login} password")).succeeds().says("as ada, admin");
}

#[test]
fn a_token_may_do_what_its_role_may_until_it_is_taken_back() {
    let fleet = Fleet::new();
    let url = fleet.url();
    let token = fleet.json("token create ci --role viewer --expires-in 1h")["token"].take();
    let with = format!("--server {url} --token {}", token.as_str().unwrap());
    fleet.operator(&format!("group list {with}")).succeeds();
    fleet.operator(&format!("token list {with}")).fails().says("needs the role admin");
    fleet.operator("token revoke ci").succeeds();
    fleet.operator(&format!("group list {with}")).fails().says("token is not known");
}

#[test]
fn a_person_signs_in_until_somebody_removes_it() {
    let fleet = Fleet::new();
    let url = fleet.url();
    fs::write(fleet.path("short"), "short").unwrap();
    let add = "person add bob --role operator --password-file";
    fleet.operator(&format!("{add} short")).fails().says("the password has 5 characters");
    fleet.operator(&format!("{add} password")).succeeds();
    fleet.operator(&format!("{add} password")).fails().says("called `bob` already");
    let login = format!("login {url} --name bob --password-file password");
    fleet.operator(&login).succeeds().says("as bob, operator");
    fleet.operator(&format!("login {url} --name ada --password-file password")).succeeds();
    fleet.operator("person remove bob").succeeds();
    fleet.operator(&login).fails().says("name or password is wrong");
    fleet.operator("person remove ada").fails().says("last admin");
    fleet.operator("audit --csv").succeeds().says("at,who,did,about,detail\r\n").says("person.add");
}
