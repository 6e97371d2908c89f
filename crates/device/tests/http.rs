//! The HTTP API as a client sees it: through the real router, on a real node, in virtual time.

mod group;
mod web;

use expect_test::expect;
use group::{bundle, spec};
use lockstep_proto::version::ProtocolRange;
use tokio::time::{Duration, Instant, sleep};
use web::{PASSWORD, Web};

#[test]
fn version_tells_everything_about_the_device_and_its_peers() {
    Web::run_pair(async |web| {
        expect![[r#"
            200
            {"device":"RECEIVER",
            "role":"receiver",
            "product":"desk",
            "id":"02:00:00:00:00:01",
            "lead":true,
            "hardware":"desk",
            "board":"t-display-s3",
            "chip":"ESP32-S3",
            "version":"1.0.0",
            "version_number":10000,
            "protocol_version":1,
            "protocol_range":[1,1],
            "min_compatible":10000,
            "build_date":"Jan  1 2026",
            "build_time":"12:00:00",
            "image":"(64 digits)",
            "slot":0,
            "slot_bytes":1966080,
            "ota_state":"valid",
            "on_trial":false,
            "trial_left_s":0,
            "rollback":"bootloader",
            "keys":0,
            "trusts_anybody":true,
            "epoch":0,
            "transmitter_connected":true,
            "transmitter_version_number":10000,
            "transmitter_compatible":true,
            "peers":[{"id":"02:00:00:00:00:02",
            "role":"transmitter",
            "version_number":10000,
            "min_compatible":10000,
            "protocol_range":[1,1],
            "image":"(16 digits)",
            "compatible":true,
            "why":null,
            "linked":true,
            "heard_ms_ago":120}],
            "data":{"received":6,
            "dropped":0,
            "soc_percent":79.5,
            "power_w":-1200},
            "uptime_seconds":2,
            "free_heap":150000,
            "boot_number":1,
            "reset_reason":"power-on"}"#]]
        .assert_eq(&web.get("/api/version").await.shown());
    });
}

#[test]
fn health_names_every_check() {
    Web::run_pair(async |web| {
        expect![[r#"
            200
            {"status":"healthy",
            "version":"1.0.0",
            "uptime_seconds":2,
            "espnow_connected":true,
            "wifi_connected":true,
            "mqtt_connected":false,
            "channel":6,
            "seeks_lead":false,
            "free_heap":150000,
            "cpu_freq_mhz":240,
            "errors":[],
            "checks":[{"name":"application",
            "required":true,
            "ok":true,
            "detail":"sample application works"},
            {"name":"link",
            "required":true,
            "ok":true,
            "detail":"1 of 1 peers answer, 0 % of frames are lost"},
            {"name":"update",
            "required":true,
            "ok":true,
            "detail":"conducts the group's rollouts itself"}],
            "frames":{"control":{"taken":40,
            "other_group":0,
            "bad_tag":0,
            "lane_version":0,
            "unknown_kind":0,
            "malformed":0,
            "replayed":0,
            "unproved":1,
            "strange":0},
            "blocks":{"taken":0,
            "unwanted":0,
            "out_of_range":0,
            "length":0,
            "known":0,
            "busy":0,
            "bad_tag":0,
            "lane_version":0,
            "malformed":0,
            "poisoned":0},
            "data":{"gated":0}}}"#]]
        .assert_eq(&web.get("/api/health").await.shown());
    });
}

#[test]
fn a_device_that_hears_nobody_says_that_it_cannot_be_updated() {
    Web::run(&["transmitter"], 0, async |web| {
        expect![[r#"
            200
            {"status":"unhealthy",
            "version":"1.0.0",
            "uptime_seconds":2,
            "espnow_connected":false,
            "wifi_connected":true,
            "mqtt_connected":false,
            "channel":6,
            "seeks_lead":false,
            "free_heap":150000,
            "cpu_freq_mhz":240,
            "errors":["link: 0 of 0 peers answer, 0 % of frames are lost",
            "update: hears nobody who could update it"],
            "checks":[{"name":"application",
            "required":true,
            "ok":true,
            "detail":"sample application works"},
            {"name":"link",
            "required":true,
            "ok":false,
            "detail":"0 of 0 peers answer, 0 % of frames are lost"},
            {"name":"update",
            "required":true,
            "ok":false,
            "detail":"hears nobody who could update it"}],
            "frames":{"control":{"taken":0,
            "other_group":0,
            "bad_tag":0,
            "lane_version":0,
            "unknown_kind":0,
            "malformed":0,
            "replayed":0,
            "unproved":0,
            "strange":0},
            "blocks":{"taken":0,
            "unwanted":0,
            "out_of_range":0,
            "length":0,
            "known":0,
            "busy":0,
            "bad_tag":0,
            "lane_version":0,
            "malformed":0,
            "poisoned":0},
            "data":{"gated":0}}}"#]]
        .assert_eq(&web.get("/api/health").await.shown());
    });
}

#[test]
fn firmware_info_is_what_fielded_transmitters_answer() {
    Web::run_pair(async |web| {
        expect![[r#"
            200
            {"valid":true,
            "env":"t-display-s3",
            "device":"RECEIVER",
            "version":"1.0.0",
            "build_date":"Jan  1 2026"}"#]]
        .assert_eq(&web.get("/api/firmware_info").await.shown());
    });
}

#[test]
fn a_device_without_a_past_has_no_rollout_and_no_history() {
    Web::run_pair(async |web| {
        expect![[r#"
            200
            {"rollout":null}"#]]
        .assert_eq(&web.get("/api/rollout").await.shown());
        expect![[r#"
            200
            {"history":[]}"#]]
        .assert_eq(&web.get("/api/history").await.shown());
        expect![[r#"
            302
            A Lockstep device. Its page is /ota, its API begins at /api/version.
        "#]]
        .assert_eq(&web.get("/").await.shown());
    });
}

#[test]
fn a_device_without_a_server_says_so_and_has_nothing_to_install() {
    Web::run_pair(async |web| {
        expect![[r#"
            200
            {"url":null,
            "enrolled":false,
            "connected":false,
            "offered":null}"#]]
        .assert_eq(&web.get("/api/server").await.shown());
        let refused = web.post("/api/server/install", b"").await.shown();
        assert!(refused.starts_with("404") && refused.contains("no-server"), "{refused}");
    });
}

/// The browser is told to run the page's own script and nothing else, and to keep nothing.
#[test]
fn the_page_comes_with_a_policy_and_the_root_leads_to_it() {
    Web::run_pair(async |web| {
        let head = |text: &str| text.split("\r\n\r\n").next().unwrap_or_default().to_owned();
        let mut client = web.connect();
        client.write(b"GET /ota HTTP/1.1\r\nHost: desk\r\n\r\n").await;
        let page = client.read_until(" -->").await;
        let said = head(&page);
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        for line in [
            "Content-Type: text/html; charset=utf-8",
            "Cache-Control: no-store",
            "Content-Security-Policy: default-src 'none'; script-src 'sha256-",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(said.contains(line), "{line} is not in {said}");
        }
        assert!(page.contains("id=updateLog"));

        let mut client = web.connect();
        client.write(b"GET / HTTP/1.1\r\nHost: desk\r\n\r\n").await;
        let said = head(&client.read_until("\r\n\r\n").await);
        assert!(said.starts_with("HTTP/1.1 302 ") && said.contains("Location: /ota"), "{said}");
    });
}

#[test]
fn logs_are_numbered_from_the_first_line_of_the_boot() {
    Web::run(&["receiver"], 0, async |web| {
        expect![[r#"
            200
            {"logs":[{"seq":1,
            "uptime_ms":0,
            "level":"notice",
            "text":"booted 1.0.0, image (8 digits), slot 0"}]}"#]]
        .assert_eq(&web.get("/api/logs").await.shown());
    });
}

#[test]
fn a_member_names_nobody_it_has_not_heard_conducting() {
    Web::run(&["receiver", "transmitter"], 1, async |web| {
        expect![[r#"
            404
            {"error":{"code":"not-the-lead",
            "message":"this device does not conduct the group's rollouts",
            "hint":"ask the device of the group that was set up as its lead"}}"#]]
        .assert_eq(&web.get("/api/rollout").await.shown());
        let reply = web.post("/api/rollout/abort", b"").await;
        assert_eq!((reply.status, reply.body.contains("not-the-lead")), (404, true), "{reply:?}");
    });
}

/// How an adoption goes on is told by the group; what cannot begin is refused at once.
#[test]
fn an_adoption_is_begun_by_whoever_has_both_passwords_and_its_end_is_told() {
    Web::run_pair(async |web| {
        let adopt =
            async |id: &str, body: &[u8]| web.post(&format!("/api/group/adopt/{id}"), body).await;
        let wish = br#"{"password":"its own words"}"#;
        for (id, body, status, code) in [
            ("02:00:00:00:00:01", &wish[..], 409, "a-member"),
            ("02:00:00:00:00:02", &wish[..], 409, "a-member"),
            ("02:00", &wish[..], 400, "bad-request"),
            ("02:00:00:00:00:09", br#"{"pass":1}"#, 400, "bad-request"),
            ("02:00:00:00:00:09", b"", 400, "bad-request"),
        ] {
            let reply = adopt(id, body).await;
            assert_eq!(reply.status, status, "{id}: {}", reply.body);
            assert!(reply.body.contains(code), "{id}: {}", reply.body);
        }
        let path = "POST /api/group/adopt/02:00:00:00:00:09 HTTP/1.1\r\nHost: desk";
        assert_eq!(web.send(path, wish).await.status, 401);

        assert_eq!(adopt("02%3a00:00:00:00:09", wish).await.status, 202);
        let reply = adopt("02:00:00:00:00:0a", wish).await;
        assert!(reply.status == 409 && reply.body.contains("adopting"), "{}", reply.body);
        let group = web.get("/api/group").await;
        assert!(group.body.contains(r#""state":"asking""#), "{}", group.body);
        sleep(Duration::from_secs(12)).await;
        let group = web.get("/api/group").await;
        assert!(group.body.contains(r#""code":"silent""#), "{}", group.body);
    });
}

#[test]
fn the_lead_names_the_members_and_lets_go_of_those_that_are_gone() {
    Web::run_pair(async |web| {
        expect![[r#"
            200
            {"members":[{"id":"02:00:00:00:00:01",
            "role":"receiver",
            "lead":true,
            "linked":true,
            "heard_ms_ago":0,
            "behind":false},
            {"id":"02:00:00:00:00:02",
            "role":"transmitter",
            "lead":false,
            "linked":true,
            "heard_ms_ago":120,
            "behind":false}],
            "in_reach":[],
            "adoption":null}"#]]
        .assert_eq(&web.get("/api/group").await.shown());
        let remove = async |id: &str| web.post(&format!("/api/group/remove/{id}"), b"").await;
        for (id, status, code) in [
            ("02:00:00:00:00:01", 409, "is-the-lead"),
            ("02:00:00:00:00:02", 409, "still-heard"),
            ("02:00:00:00:00:09", 404, "not-a-member"),
            ("02:00:00", 400, "bad-request"),
            ("", 400, "bad-request"),
        ] {
            let reply = remove(id).await;
            assert_eq!(reply.status, status, "{id}: {}", reply.body);
            assert!(reply.body.contains(code), "{id}: {}", reply.body);
        }
        let path = "POST /api/group/remove/02:00:00:00:00:02 HTTP/1.1\r\nHost: desk";
        assert_eq!(web.send(path, b"").await.status, 401);

        web.group.borrow_mut().cut_power(1, 3_600_000);
        sleep(Duration::from_secs(5)).await;
        expect![[r#"
            200
            {"removed":"02:00:00:00:00:02",
            "role":"transmitter"}"#]]
        .assert_eq(&remove("02%3A00:00:00:00:02").await.shown());
        expect![[r#"
            200
            {"members":[{"id":"02:00:00:00:00:01",
            "role":"receiver",
            "lead":true,
            "linked":true,
            "heard_ms_ago":0,
            "behind":false}],
            "in_reach":[],
            "adoption":null}"#]]
        .assert_eq(&web.get("/api/group").await.shown());

        // It was somebody's mistake: the device is back, and so is the member.
        web.group.borrow_mut().cut_power(1, 0);
        sleep(Duration::from_secs(5)).await;
        let members = web.get("/api/group").await.body;
        assert!(members.contains("02:00:00:00:00:02"), "{members}");
    });
}

#[test]
fn unknown_paths_and_methods_say_what_there_is() {
    Web::run_pair(async |web| {
        expect![[r#"
            404
            {"error":{"code":"not-found",
            "message":"there is no `/api/nothing`",
            "hint":"`GET /api/version` is a good start"}}"#]]
        .assert_eq(&web.get("/api/nothing").await.shown());
        let reply = web.send("PUT /api/rollout HTTP/1.1\r\nHost: desk", b"").await;
        assert!(reply.head.contains("\r\nAllow: GET, POST\r\n"), "{}", reply.head);
        expect![[r#"
            405
            {"error":{"code":"method-not-allowed",
            "message":"`/api/rollout` knows no method `PUT`, only GET, POST",
            "hint":"reads are GET, orders are POST, what is replaced is PUT"}}"#]]
        .assert_eq(&reply.shown());
    });
}

#[test]
fn orders_need_the_password_in_either_form() {
    Web::run_pair(async |web| {
        let order = |line: &str| format!("POST /api/rollout/abort HTTP/1.1\r\nHost: desk{line}");

        let reply = web.send(&order(""), b"").await;
        assert!(reply.head.contains("\r\nWWW-Authenticate: Basic realm=\"lockstep\"\r\n"));
        expect![[r#"
            401
            {"error":{"code":"unauthorized",
            "message":"request carries no password",
            "hint":"send it as `Authorization: Bearer PASSWORD`, or by HTTP Basic with any user"}}"#]].assert_eq(&reply.shown());

        let reply = web.send(&order("\r\nAuthorization: Bearer wrong"), b"").await;
        expect![[r#"
            401
            {"error":{"code":"unauthorized",
            "message":"password is wrong",
            "hint":"it was shown at the device's first start, and can be set anew by cable"}}"#]]
        .assert_eq(&reply.shown());

        // "anybody:correct horse"
        let basic = "\r\nAuthorization: Basic YW55Ym9keTpjb3JyZWN0IGhvcnNl";
        let reply = web.send(&order(basic), b"").await;
        expect![[r#"
            409
            {"error":{"code":"nothing-to-abort",
            "message":"no rollout is running",
            "hint":"`GET /api/history` names past rollouts"}}"#]]
        .assert_eq(&reply.shown());
    });
}

/// Guessing over several connections at once is no faster than over one.
#[test]
fn after_five_wrong_passwords_each_one_takes_a_second() {
    Web::run_pair(async |web| {
        let wrong = "POST /api/rollout/abort HTTP/1.1\r\nHost: desk\r\nAuthorization: Bearer no";
        let begin = Instant::now();
        for _ in 0..5 {
            assert_eq!(web.send(wrong, b"").await.status, 401);
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());

        let guesses: Vec<_> = (0..3)
            .map(|_| {
                let web = web.clone();
                tokio::task::spawn_local(async move { web.send(wrong, b"").await.status })
            })
            .collect();
        for guess in guesses {
            assert_eq!(guess.await.unwrap(), 401);
        }
        assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());

        // Whoever knows it waits in the same queue, and ends it.
        assert_eq!(web.post("/api/rollout/abort", b"").await.status, 409);
        let begin = Instant::now();
        assert_eq!(web.post("/api/rollout/abort", b"").await.status, 409);
        assert!(begin.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn a_device_without_a_password_takes_no_orders() {
    Web::run_pair(async |web| {
        // A device fresh from the factory: its record knows no password.
        *web.group.borrow_mut() = group::TestGroup::pair();
        expect![[r#"
            401
            {"error":{"code":"no-password",
            "message":"device has no password yet, and takes no orders without one",
            "hint":"set one on the device: a desk device prints it at its first start"}}"#]]
        .assert_eq(&web.post("/api/rollout/abort", b"").await.shown());
    });
}

#[test]
fn pages_of_other_sites_are_refused_even_with_the_password() {
    Web::run_pair(async |web| {
        let reply = web.post_with("/api/rollout/abort", "Origin: http://evil.example", b"").await;
        expect![[r#"
            403
            {"error":{"code":"cross-origin",
            "message":"page of `http://evil.example` may not use the device at `desk`",
            "hint":"open the device's own page, or use the command `lockstep`"}}"#]]
        .assert_eq(&reply.shown());
        let reply = web.post_with("/api/rollout/abort", "Origin: null", b"").await;
        assert_eq!(reply.status, 403);
        let reply = web.post_with("/api/rollout/abort", "Origin: http://desk", b"").await;
        assert_eq!(reply.status, 409);
    });
}

#[test]
fn a_bundle_of_unknown_absurd_or_no_length_is_refused() {
    Web::run_pair(async |web| {
        let upload = |line: &str| {
            format!(
                "POST /api/rollout HTTP/1.1\r\nHost: desk\r\nAuthorization: Bearer {PASSWORD}{line}"
            )
        };
        expect![[r#"
            411
            {"error":{"code":"length-required",
            "message":"body comes without `Content-Length`",
            "hint":"send the file as it is, not in chunks"}}"#]]
        .assert_eq(&web.send(&upload(""), b"").await.shown());
        let reply = web.send(&upload("\r\nTransfer-Encoding: chunked"), b"0\r\n\r\n").await;
        assert_eq!(reply.status, 411);
        let reply = web.send(&upload("\r\nContent-Length: 67108865"), b"").await;
        expect![[r#"
            413
            {"error":{"code":"too-large",
            "message":"bundle has (8 digits) bytes, allowed are (8 digits)",
            "hint":"make a bundle with `lockstep release create`"}}"#]]
        .assert_eq(&reply.shown());
        // What would overflow the server's sums is too large like everything else.
        let reply = web.send(&upload("\r\nContent-Length: 18446744073709551615"), b"").await;
        assert_eq!(reply.status, 413);
        let reply = web.send(&upload("\r\nContent-Length: -1"), b"").await;
        assert_eq!(reply.status, 400);
    });
}

#[test]
fn garbage_is_no_bundle_and_its_sender_sees_why() {
    Web::run_pair(async |web| {
        // Much more than any buffer on the way: the answer comes although all of it was not read.
        let reply = web.post("/api/rollout", &[b'x'; 300_000]).await;
        expect![[r#"
            400
            {"error":{"code":"bad-bundle",
            "message":"`bundle` has no tar header at byte 0, expected `ustar` in it",
            "hint":"make the bundle with `lockstep release create`"}}"#]]
        .assert_eq(&reply.shown());
        assert!(reply.all_taken, "a reset would have taken the answer away");
        assert_eq!(web.get("/api/rollout").await.body, r#"{"rollout":null}"#);
    });
}

#[test]
fn the_one_who_may_not_upload_learns_it_without_being_asked_for_the_bundle() {
    Web::run_pair(async |web| {
        let head = "POST /api/rollout HTTP/1.1\r\nHost: desk\r\nContent-Length: 300000\r\n\
                    Expect: 100-continue";
        let begin = Instant::now();
        let reply = web.send(head, b"").await;
        assert_eq!(reply.status, 401, "{reply:?}");
        // In virtual time: nobody waited for a body that never came.
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    });
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_bundle_is_asked() {
    Web::run_pair(async |web| {
        let mut client = web.connect();
        let head = format!(
            "POST /api/rollout HTTP/1.1\r\nHost: desk\r\nAuthorization: Bearer {PASSWORD}\r\n\
             Content-Length: 600\r\nExpect: 100-continue\r\n\r\n"
        );
        client.write(head.as_bytes()).await;
        assert_eq!(client.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write(&[b'x'; 600]).await;
        assert_eq!(client.read_reply().await.status, 400);
    });
}

#[test]
fn there_is_nothing_to_abort_or_to_revert_at_first() {
    Web::run_pair(async |web| {
        expect![[r#"
            409
            {"error":{"code":"nothing-to-abort",
            "message":"no rollout is running",
            "hint":"`GET /api/history` names past rollouts"}}"#]]
        .assert_eq(&web.post("/api/rollout/abort", b"").await.shown());
        expect![[r#"
            409
            {"error":{"code":"nothing-to-revert",
            "message":"there is no kept release to go back from",
            "hint":"update to the older release from its bundle instead"}}"#]]
        .assert_eq(&web.post("/api/rollout/revert", b"").await.shown());
    });
}

#[test]
fn an_upload_goes_on_only_where_it_was_cut() {
    Web::run_pair(async |web| {
        let reply = web.post_with("/api/rollout", "Content-Range: bytes 5-9/10", b"12345").await;
        expect![[r#"
            409
            {"error":{"code":"nothing-to-continue",
            "message":"there is no cut upload to go on with",
            "hint":"upload the bundle from its first byte, without `Content-Range`"}}"#]]
        .assert_eq(&reply.shown());
        let reply = web.post_with("/api/rollout", "Content-Range: bytes 5-8/10", b"12345").await;
        expect![[r#"
            400
            {"error":{"code":"bad-request",
            "message":"`Content-Range` is `bytes 5-8/10`, wanted is the rest of the bundle, as many bytes as `Content-Length` says",
            "hint":"go on at `rollout.upload.next_offset` and send everything from there"}}"#]].assert_eq(&reply.shown());
    });
}

#[test]
fn a_third_event_stream_is_refused_until_one_of_the_two_ends() {
    Web::run_pair(async |web| {
        let events = b"GET /api/rollout/events HTTP/1.1\r\nHost: desk\r\n\r\n";
        let (mut one, mut two) = (web.connect(), web.connect());
        one.write(events).await;
        two.write(events).await;
        for stream in [&mut one, &mut two] {
            let begin = stream.read_until("}\n\n").await;
            assert!(begin.contains("\r\nContent-Type: text/event-stream\r\n"), "{begin}");
            assert!(begin.ends_with("event: rollout\ndata: {\"rollout\":null}\n\n"), "{begin}");
        }
        expect![[r#"
            503
            {"error":{"code":"too-many-streams",
            "message":"2 event streams are open, allowed are 2",
            "hint":"close another page of this device, or ask `GET /api/rollout` now and then"}}"#]]
        .assert_eq(&web.get("/api/rollout/events").await.shown());

        drop(one);
        sleep(Duration::from_secs(1)).await;
        let mut three = web.connect();
        three.write(events).await;
        three.read_until("event: rollout\n").await;
    });
}

fn lone_bundle() -> Vec<u8> {
    let image = spec("receiver", "1.1.0").build().unwrap();
    bundle("1.1.0", &[("receiver", &image)], group::INSTRUCTIONS)
}

#[test]
fn a_bundle_for_a_group_of_one_is_taken_and_its_rollout_can_be_watched() {
    Web::run(&["receiver"], 0, async |web| {
        let mut stream = web.connect();
        stream.write(b"GET /api/rollout/events HTTP/1.1\r\nHost: desk\r\n\r\n").await;
        stream.read_until("{\"rollout\":null}\n\n").await;

        let reply = web.post("/api/rollout", &lone_bundle()).await;

        expect![[r#"
            202
            {"rollout":"(16 digits)"}"#]]
        .assert_eq(&reply.shown());
        let events = stream.read_until("\"phase\":\"trial\"").await;
        let events: Vec<_> =
            events.lines().filter(|line| line.starts_with("data: {\"seq")).collect();
        expect![[r#"
            data: {"seq":1,"uptime_ms":2990,"kind":"entered","phase":"staging","member":null,"role":null,"text":"staging of forward to 1.1.0: what the other slots hold is given up"}
            data: {"seq":2,"uptime_ms":3190,"kind":"staged","phase":null,"member":"02:00:00:00:00:01","role":"receiver","text":"`receiver` has staged"}
            data: {"seq":3,"uptime_ms":3190,"kind":"entered","phase":"rest","member":null,"role":null,"text":"rest of forward to 1.1.0"}
            data: {"seq":4,"uptime_ms":3240,"kind":"at-rest","phase":null,"member":"02:00:00:00:00:01","role":"receiver","text":"`receiver` is at rest"}
            data: {"seq":5,"uptime_ms":3240,"kind":"entered","phase":"trial""#]].assert_eq(&events.join("\n"));
    });
}

#[test]
fn a_cut_upload_goes_on_at_the_byte_that_the_device_names() {
    Web::run(&["receiver"], 0, async |web| {
        let bundle = lone_bundle();
        let size = bundle.len();
        drop(web.begin_upload(size, &bundle[..9_000]).await);
        sleep(Duration::from_secs(1)).await;

        let reply = web.get("/api/rollout").await;
        let next = format!("\"upload\":{{\"next_offset\":9000,\"size_bytes\":{size}}}");
        assert!(reply.body.contains(&next), "{}", reply.body);
        let busy = web.post("/api/rollout", &bundle).await;
        expect![[r#"
            409
            {"error":{"code":"busy",
            "message":"rollout `(16 digits)` is still running",
            "hint":"wait until it has settled, or end it with `lockstep abort`"},
            "rollout":"(16 digits)"}"#]]
        .assert_eq(&busy.shown());
        let wrong = format!("Content-Range: bytes 10-{}/{size}", size - 1);
        let wrong = web.post_with("/api/rollout", &wrong, &bundle[10..]).await;
        expect![[r#"
            409
            {"error":{"code":"wrong-offset",
            "message":"upload goes on at byte 10, the device is at 9000",
            "hint":"go on at `rollout.upload.next_offset` of `GET /api/rollout`"}}"#]]
        .assert_eq(&wrong.shown());

        let rest = format!("Content-Range: bytes 9000-{}/{size}", size - 1);
        let reply = web.post_with("/api/rollout", &rest, &bundle[9_000..]).await;
        assert_eq!(reply.status, 202, "{reply:?}");
    });
}

/// The laptop sleeps, its connection stays: the device lets it go, and the upload goes on later.
#[test]
fn a_silent_upload_is_given_up_after_ten_seconds() {
    Web::run(&["receiver"], 0, async |web| {
        let bundle = lone_bundle();
        let client = web.begin_upload(bundle.len(), &bundle[..9_000]).await;
        let second = web.post("/api/rollout", &bundle).await;
        assert_eq!(second.status, 409, "{second:?}");
        expect![[r#"
            408
            {"error":{"code":"timed-out",
            "message":"no byte of the bundle came for 10000 ms",
            "hint":"go on at `rollout.upload.next_offset` of `GET /api/rollout`"}}"#]]
        .assert_eq(&client.read_reply().await.shown());
    });
}

/// The dead connection of a laptop that woke up elsewhere must not keep it from going on.
#[test]
fn a_continued_upload_takes_the_turn_from_a_silent_one() {
    Web::run(&["receiver"], 0, async |web| {
        let bundle = lone_bundle();
        let size = bundle.len();
        let mut silent = web.begin_upload(size, &bundle[..9_000]).await;

        let rest = format!("Content-Range: bytes 9000-{}/{size}", size - 1);
        let reply = web.post_with("/api/rollout", &rest, &bundle[9_000..]).await;

        assert_eq!(reply.status, 202, "{reply:?}");
        silent.write(&bundle[9_000..]).await;
        let late = silent.read_reply().await;
        assert_eq!(
            (late.status, late.body.contains("another connection")),
            (409, true),
            "{late:?}"
        );
    });
}

#[test]
fn an_abort_ends_an_upload_that_is_on_its_way() {
    Web::run(&["receiver"], 0, async |web| {
        let bundle = lone_bundle();
        let mut client = web.begin_upload(bundle.len(), &bundle[..9_000]).await;

        assert_eq!(web.post("/api/rollout/abort", b"").await.status, 202);

        sleep(Duration::from_secs(1)).await;
        assert!(client.write(&bundle[9_000..]).await);
        expect![[r#"
            409
            {"error":{"code":"ended",
            "message":"rollout `(16 digits)` has ended: aborted on request",
            "hint":"see `GET /api/history`, then upload the bundle again"},
            "rollout":"(16 digits)"}"#]]
        .assert_eq(&client.read_reply().await.shown());
    });
}

#[test]
fn the_configuration_is_kept_shown_without_secrets_and_refused_with_the_applications_words() {
    Web::run_pair(async |web| {
        expect![[r#"
            200
            {}"#]]
        .assert_eq(&web.get("/api/config").await.shown());
        let put = async |body: &[u8]| web.put("/api/config", body).await.shown();
        expect![[r#"
            200
            {"mqtt":{},
            "name":"desk",
            "send_every_ms":250}"#]]
        .assert_eq(
            &put(br#"{"name":"desk","send_every_ms":250,"mqtt":{"mqtt_password":"s3cret"}}"#).await,
        );
        let open = web.send("GET /api/config?secrets=true HTTP/1.1\r\nHost: desk", b"").await;
        assert_eq!(open.status, 401);
        expect![[r#"
            200
            {"mqtt":{},
            "name":"desk",
            "send_every_ms":250}"#]]
        .assert_eq(&web.get("/api/config").await.shown());
        // A backup without secrets, put back, does not lose them.
        put(br#"{"name":"desk 2","mqtt":{}}"#).await;
        let known = format!("\r\nAuthorization: Bearer {PASSWORD}");
        let all = format!("GET /api/config?secrets=true HTTP/1.1\r\nHost: desk{known}");
        expect![[r#"
            200
            {"mqtt":{"mqtt_password":"s3cret"},
            "name":"desk 2"}"#]]
        .assert_eq(&web.send(&all, b"").await.shown());
        for body in ["", "[]", "{", "7", "null"] {
            assert!(put(body.as_bytes()).await.starts_with("400\n"), "{body}");
        }
        expect![[r#"
            400
            {"error":{"code":"bad-request",
            "message":"configuration is not one JSON object: invalid type: sequence, expected a map at line 1 column 0",
            "hint":"send what `GET /api/config` answered, or another object"}}"#]].assert_eq(&put(b"[]").await);
        expect![[r#"
            422
            {"error":{"code":"bad-config",
            "message":"application refuses the configuration: `send_every_ms` is 1, allowed is a number from 50 to 60000",
            "hint":"mend what it names; the configuration before is still in force"}}"#]].assert_eq(&put(br#"{"send_every_ms":1}"#).await);
        let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(8_200));
        expect![[r#"
            413
            {"error":{"code":"too-large",
            "message":"body has 8211 bytes, allowed are 8192",
            "hint":"send less"}}"#]]
        .assert_eq(&put(long.as_bytes()).await);
        expect![[r#"
            200
            {"mqtt":{},
            "name":"desk 2"}"#]]
        .assert_eq(&web.get("/api/config").await.shown());
        let reply = web.post("/api/config", b"{}").await;
        assert_eq!(reply.status, 405, "{reply:?}");
        assert!(reply.head.contains("\r\nAllow: GET, PUT\r\n"), "{}", reply.head);
    });
}

#[test]
fn the_password_is_changed_by_whoever_knows_it() {
    Web::run_pair(async |web| {
        let put = async |body: &[u8]| web.put("/api/password", body).await.shown();
        for bad in ["short", " spaces around ", "tab\\tinside it", &"x".repeat(65)] {
            let reply = put(format!("{{\"password\":\"{bad}\"}}").as_bytes()).await;
            assert!(reply.contains("bad-password"), "{bad}: {reply}");
        }
        expect![[r#"
            400
            {"error":{"code":"bad-password",
            "message":"password has 5 characters, allowed are 8 to 64, with no space at either end",
            "hint":"several words are easier to keep in mind than signs"}}"#]]
        .assert_eq(&put(br#"{"password":"short"}"#).await);
        expect![[r#"
            400
            {"error":{"code":"bad-request",
            "message":"body is not what this call takes: unknown field `word`, expected `password` at line 1 column 7",
            "hint":"send `{\"password\":\"…\"}`"}}"#]].assert_eq(&put(br#"{"word":"correct"}"#).await);
        expect![[r#"
            200
            {"changed":true}"#]]
        .assert_eq(&put(br#"{"password":"staple battery"}"#).await);
        // The old one opens nothing any more, the new one does.
        assert_eq!(web.post("/api/rollout/abort", b"").await.status, 401);
        let order = "POST /api/rollout/abort HTTP/1.1\r\nHost: desk";
        let order = format!("{order}\r\nAuthorization: Bearer staple battery");
        assert_eq!(web.send(&order, b"").await.status, 409);
    });
}

#[test]
fn there_is_nothing_to_schedule_at_first_and_only_a_number_or_null_is_a_schedule() {
    Web::run_pair(async |web| {
        let schedule = async |body: &[u8]| web.post("/api/rollout/schedule", body).await.shown();
        expect![[r#"
            409
            {"error":{"code":"nothing-to-schedule",
            "message":"no rollout is running that could wait",
            "hint":"begin one with `POST /api/rollout?hold=true`"}}"#]]
        .assert_eq(&schedule(br#"{"in_s":0}"#).await);
        for body in ["", "{}", "[]", r#"{"in_s":-1}"#, r#"{"in_s":"soon"}"#, r#"{"in_s":1,"at":2}"#]
        {
            let reply = schedule(body.as_bytes()).await;
            assert!(
                reply.starts_with("400\n{\"error\":{\"code\":\"bad-request\""),
                "{body}: {reply}"
            );
        }
        expect![[r#"
            400
            {"error":{"code":"bad-request",
            "message":"body is not what this call takes: missing field `in_s` at line 1 column 2",
            "hint":"send `{\"in_s\":SECONDS}`, 0 for at once, null for not yet"}}"#]]
        .assert_eq(&schedule(b"{}").await);
        expect![[r#"
            413
            {"error":{"code":"too-large",
            "message":"body has 300 bytes, allowed are 256",
            "hint":"send less"}}"#]]
        .assert_eq(&schedule(&[b' '; 300]).await);
    });
}

/// Nothing else about the rollout changes meanwhile: a page that was not told would go on counting.
#[test]
fn whoever_watches_is_told_of_a_moment_that_was_named_and_of_one_that_was_taken_back() {
    Web::run(&["receiver"], 0, async |web| {
        assert_eq!(web.post("/api/rollout?hold=true", &lone_bundle()).await.status, 202);
        sleep(Duration::from_secs(30)).await;
        let mut stream = web.connect();
        stream.write(b"GET /api/rollout/events HTTP/1.1\r\nHost: desk\r\n\r\n").await;
        stream.read_until("\"starts_in_s\":null").await;
        sleep(Duration::from_secs(30)).await;

        for (body, told) in [("60", "60"), ("3600", "3600"), ("null", "null")] {
            let body = format!("{{\"in_s\":{body}}}");
            let reply = web.post("/api/rollout/schedule", body.as_bytes()).await;
            assert_eq!(reply.status, 202, "{reply:?}");
            stream.read_until(&format!("\"starts_in_s\":{told},")).await;
        }
    });
}

#[test]
fn an_upload_can_be_held_scheduled_and_let_go() {
    Web::run(&["receiver"], 0, async |web| {
        let bundle = lone_bundle();
        let reply = web.post("/api/rollout?hold=true", &bundle).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        let waits = async || {
            let body = web.get("/api/rollout").await.body;
            let fields = ["phase", "held", "starts_in_s", "schedule_lost"];
            let of = |field: &&str| {
                let (_, rest) = body.split_once(&format!("\"{field}\":")).unwrap();
                format!("{field} {}", rest.split_once(',').unwrap().0)
            };
            fields.iter().map(of).collect::<Vec<_>>().join(", ")
        };
        sleep(Duration::from_secs(30)).await;
        expect![[r#"phase "staging", held true, starts_in_s null, schedule_lost false"#]]
            .assert_eq(&waits().await);
        let schedule = async |body: &[u8]| web.post("/api/rollout/schedule", body).await.shown();
        expect![[r#"
            202
            {"rollout":"(16 digits)"}"#]]
        .assert_eq(&schedule(br#"{"in_s":60}"#).await);
        expect![[r#"phase "staging", held true, starts_in_s 60, schedule_lost false"#]]
            .assert_eq(&waits().await);
        assert!(schedule(br#"{"in_s":null}"#).await.starts_with("202"));
        expect![[r#"phase "staging", held true, starts_in_s null, schedule_lost false"#]]
            .assert_eq(&waits().await);
        expect![[r#"
            400
            {"error":{"code":"bad-request",
            "message":"a rollout waits for less than 604800 s",
            "hint":"name an earlier moment, or let it wait until you say go"}}"#]]
        .assert_eq(&schedule(br#"{"in_s":604800}"#).await);
        assert!(schedule(br#"{"in_s":5}"#).await.starts_with("202"));
        sleep(Duration::from_secs(10)).await;
        expect![[r#"phase "settled", held false, starts_in_s null, schedule_lost false"#]]
            .assert_eq(&waits().await);
        expect![[r#"
            409
            {"error":{"code":"nothing-to-schedule",
            "message":"no rollout is running that could wait",
            "hint":"begin one with `POST /api/rollout?hold=true`"}}"#]]
        .assert_eq(&schedule(br#"{"in_s":5}"#).await);
    });
}

#[test]
fn a_rollout_that_has_asked_for_rest_waits_for_nobody_any_more() {
    Web::run(&["receiver"], 0, async |web| {
        assert!(web.post("/api/rollout", &lone_bundle()).await.shown().starts_with("202"));
        while web.get("/api/rollout").await.shown().contains("\"phase\":\"staging\"") {
            sleep(Duration::from_millis(10)).await;
        }
        expect![[r#"
            409
            {"error":{"code":"too-late-to-schedule",
            "message":"rollout `(16 digits)` does not wait any more",
            "hint":"it can still be ended with `lockstep abort`"},
            "rollout":"(16 digits)"}"#]]
        .assert_eq(&web.post("/api/rollout/schedule", br#"{"in_s":5}"#).await.shown());
    });
}

#[test]
fn a_bundle_that_does_not_fit_is_refused_with_every_reason() {
    Web::run(&["receiver"], 0, async |web| {
        let image = spec("transmitter", "1.1.0").build().unwrap();
        let images = [("transmitter", &image[..]), ("receiver", &image[..])];
        let bundle = bundle("1.1.0", &images, group::INSTRUCTIONS);
        let reply = web.post("/api/rollout", &bundle).await;
        expect![[r#"
            422
            {"error":{"code":"refused",
            "message":"image for `receiver` is for chip `ESP32`, the device has `ESP32-S3`",
            "hint":"take the image that was built for this device",
            "refusals":[{"code":"wrong-chip",
            "member":"02:00:00:00:00:01",
            "role":"receiver",
            "message":"image for `receiver` is for chip `ESP32`, the device has `ESP32-S3`",
            "hint":"take the image that was built for this device"},
            {"code":"wrong-board",
            "member":"02:00:00:00:00:01",
            "role":"receiver",
            "message":"image for `receiver` is for board `esp32-poe-iso`, the device is a `t-display-s3`",
            "hint":"take the image that was built for this device"},
            {"code":"no-device-for-role",
            "member":null,
            "role":"transmitter",
            "message":"the group has no device of role `transmitter`",
            "hint":"add a device of that role, or leave the role out"}]}}"#]].assert_eq(&reply.shown());
    });
}

#[test]
fn a_bundle_that_ends_too_early_ends_its_rollout() {
    Web::run(&["receiver"], 0, async |web| {
        let bundle = lone_bundle();
        let reply = web.post("/api/rollout", &bundle[..bundle.len() - 2_000]).await;
        expect![[r#"
            400
            {"error":{"code":"bad-bundle",
            "message":"`bundle` ends at byte 25648, before its end was reached",
            "hint":"make the bundle with `lockstep release create`"}}"#]]
        .assert_eq(&reply.shown());
        sleep(Duration::from_secs(5)).await;
        expect![[r#"
            200
            {"history":[{"rollout":"(16 digits)",
            "generation":"0.1",
            "kind":"forward",
            "verdict":"revert",
            "cause":{"code":"bad-upload",
            "member":null,
            "text":"the upload is not what its manifest says"},
            "release":"1.1.0",
            "release_before":"1.0.0",
            "disagreed_s":null,
            "patched":0,
            "patch_refused":0,
            "patch_refusal":null}]}"#]]
        .assert_eq(&web.get("/api/history").await.shown());
    });
}

#[test]
fn a_bare_image_is_uploaded_then_installed() {
    Web::run_pair(async |web| {
        expect![[r#"
            409
            {"error":{"code":"nothing-to-install",
            "message":"no image was uploaded that could be installed",
            "hint":"upload an image with `POST /api/ota/upload` first; a restart forgets it"}}"#]]
        .assert_eq(&web.post("/api/ota/install", b"").await.shown());
        let image = spec("transmitter", "1.1.0").build().unwrap();
        expect![[r#"
            200
            {"role":"transmitter",
            "version":"1.1.0",
            "board":"esp32-poe-iso",
            "chip":"ESP32",
            "size_bytes":24576,
            "sha256":"(64 digits)",
            "image_sha256":"(64 digits)"}"#]]
        .assert_eq(&web.post("/api/ota/upload", &image).await.shown());
        expect![[r#"
            202
            {"rollout":"(16 digits)"}"#]]
        .assert_eq(&web.post("/api/ota/install", b"").await.shown());
        expect![[r#"
            409
            {"error":{"code":"busy",
            "message":"rollout `(16 digits)` is still running",
            "hint":"wait until it has settled, or end it with `lockstep abort`"},
            "rollout":"(16 digits)"}"#]]
        .assert_eq(&web.post("/api/ota/upload", &image).await.shown());
    });
}

#[test]
fn what_fielded_tools_post_begins_a_rollout_of_the_group() {
    Web::run_pair(async |web| {
        let image = spec("transmitter", "1.1.0").build().unwrap();
        expect![[r#"
            202
            {"rollout":"(16 digits)"}"#]]
        .assert_eq(&web.post("/ota_upload", &image).await.shown());
    });
}

#[test]
fn a_bare_image_that_does_not_fit_is_refused_with_every_reason() {
    Web::run_pair(async |web| {
        let mut foreign = spec("transmitter", "2.0.0");
        foreign.descriptor.protocol = ProtocolRange::single(2);
        let image = foreign.build().unwrap();
        expect![[r#"
            422
            {"error":{"code":"refused",
            "message":"`receiver` and `transmitter` would not understand each other: this device speaks protocol 1, the peer 2; update this device first",
            "hint":"update both together, or by way of a release between",
            "refusals":[{"code":"incompatible",
            "member":null,
            "role":"receiver",
            "message":"`receiver` and `transmitter` would not understand each other: this device speaks protocol 1, the peer 2; update this device first",
            "hint":"update both together, or by way of a release between"}]}}"#]].assert_eq(&web.post("/ota_upload", &image).await.shown());
    });
}

#[test]
fn what_is_no_bare_image_for_this_device_is_refused() {
    Web::run_pair(async |web| {
        expect![[r#"
            422
            {"error":{"code":"bad-image",
            "message":"image is refused: the `image` begins with 0x74, expected 0xe9",
            "hint":"send the application's `.bin` as it was built, or a bundle to `POST /api/rollout`"}}"#]].assert_eq(&web.post("/ota_upload", &b"text".repeat(200)).await.shown());
        let form = "Content-Type: multipart/form-data; boundary=x";
        let reply = web.post_with("/ota_upload", form, b"--x\r\n").await;
        expect![[r#"
            415
            {"error":{"code":"wrong-type",
            "message":"body is `multipart/form-data; boundary=x`, expected the image itself",
            "hint":"send the file as the body, such as `curl --data-binary @firmware.bin`"}}"#]]
        .assert_eq(&reply.shown());
        let lamp = spec("lamp", "1.1.0").build().unwrap();
        expect![[r#"
            422
            {"error":{"code":"bad-image",
            "message":"image is refused: it is for role `lamp`, and no device of this group has that",
            "hint":"send the application's `.bin` as it was built, or a bundle to `POST /api/rollout`"}}"#]].assert_eq(&web.post("/api/ota/upload", &lamp).await.shown());
        let bundle = lone_bundle();
        expect![[r#"
            422
            {"error":{"code":"bad-image",
            "message":"image is refused: the `image` is a tar archive, perhaps a bundle: it begins with 0x6d, expected 0xe9",
            "hint":"send the application's `.bin` as it was built, or a bundle to `POST /api/rollout`"}}"#]].assert_eq(&web.post("/api/ota/upload", &bundle).await.shown());
    });
}

/// A transmitter that were flipped alone would be dead.
#[test]
fn a_member_takes_no_bare_image_and_names_its_lead() {
    Web::run(&["receiver", "transmitter"], 1, async |web| {
        let image = spec("transmitter", "1.1.0").build().unwrap();
        expect![[r#"
            404
            {"error":{"code":"not-the-lead",
            "message":"this device does not conduct the group's rollouts",
            "hint":"ask the device of the group that was set up as its lead"}}"#]]
        .assert_eq(&web.post("/ota_upload", &image).await.shown());
    });
}

#[test]
fn a_bare_image_that_is_cut_off_leaves_nothing_to_install() {
    Web::run_pair(async |web| {
        let image = spec("transmitter", "1.1.0").build().unwrap();
        let head = format!(
            "POST /ota_upload HTTP/1.1\r\nHost: desk\r\nAuthorization: Bearer {PASSWORD}\r\n\
             Content-Length: {}",
            image.len()
        );
        let mut client = web.connect();
        client.write(format!("{head}\r\n\r\n").as_bytes()).await;
        client.write(&image[..8_000]).await;
        sleep(Duration::from_secs(12)).await;
        expect![[r#"
            400
            {"error":{"code":"cut",
            "message":"the connection was cut before all 24576 bytes had come",
            "hint":"upload the image again; nothing was begun"}}"#]]
        .assert_eq(&client.read_reply().await.shown());
        expect![[r#"
            409
            {"error":{"code":"nothing-to-install",
            "message":"no image was uploaded that could be installed",
            "hint":"upload an image with `POST /api/ota/upload` first; a restart forgets it"}}"#]]
        .assert_eq(&web.post("/api/ota/install", b"").await.shown());
    });
}

#[test]
fn what_is_not_http_harms_nobody() {
    Web::run_pair(async |web| {
        for head in ["", "\0\0\0\0", "GET", "GET / HTTP/1.1\r\nno colon", &"x".repeat(5_000)] {
            let reply = web.send(head, b"").await;
            assert!(matches!(reply.status, 0 | 400), "{head:?}: {reply:?}");
        }
        assert_eq!(web.get("/api/version").await.status, 200);
    });
}
