//! What a client may do wrong before and after login. After each the router still serves others.

use crate::support::client::{Message, Target};
use crate::support::{Client, Deployment, Failure};
use postgres_protocol::message::frontend;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const SCHEMA: &str = "CREATE TABLE accounts (aid int PRIMARY KEY, balance int)";

/// One router for all tests here that need no settings of their own: they show that it survives them all.
fn shared() -> &'static Deployment<'static> {
    static SHARED: OnceLock<Deployment<'static>> = OnceLock::new();
    SHARED.get_or_init(|| {
        Deployment::shared()
            .schema(SCHEMA)
            .sharded("accounts", "aid")
            .start()
    })
}

/// Runs `misbehave` on a fresh socket, then sees whether others are still served.
fn survives<T>(misbehave: impl FnOnce(&Target, &mut Client) -> T) -> T {
    let target = shared().target();
    let mut client = target.socket().expect("connect");
    let outcome = misbehave(&target, &mut client);
    drop(client);
    assert_eq!(target.connect().value("SELECT 41 + 1"), "42");
    outcome
}

/// Frames `body` as a startup packet.
fn startup_packet(code: i32, body: &[u8]) -> Vec<u8> {
    let length = (8 + body.len()) as i32;
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

fn parameters(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in pairs {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    body
}

const PROTOCOL_3_0: i32 = 3 << 16;
const SSL_REQUEST: i32 = 80877103;
const GSSENC_REQUEST: i32 = 80877104;

/// The fatal error that must come, and then the end.
#[track_caller]
fn fatal(client: &mut Client) -> Failure {
    let message = client.read().expect("an error before the end");
    assert_eq!(char::from(message.tag), 'E');
    let failure = message.failure();
    assert_eq!(failure.severity(), "FATAL", "{failure}");
    assert!(client.read().is_none(), "the end follows a fatal error");
    failure
}

/// Either a fatal error of one of these codes, or just the end.
#[track_caller]
fn fatal_or_end(client: &mut Client, codes: &[&str]) {
    if let Some(message) = client.read() {
        assert_eq!(char::from(message.tag), 'E');
        let failure = message.failure();
        assert!(codes.contains(&failure.code()), "{failure}");
        assert!(client.read().is_none(), "the end follows");
    }
}

#[test]
fn garbage_instead_of_a_startup_message_ends_the_connection() {
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 64],
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3],
        b"\0\0\0\x04",
        b"\0\0\0\x07abc",
    ] {
        survives(|_, client| {
            client.send(garbage);
            fatal_or_end(client, &["08P01", "0A000"]);
        });
    }
}

#[test]
fn a_startup_message_that_claims_to_be_huge_is_not_waited_for() {
    survives(|_, client| {
        client.read_timeout(Duration::from_secs(5));
        client.send(&0x7fff_ffff_i32.to_be_bytes());
        client.send(&PROTOCOL_3_0.to_be_bytes());
        fatal_or_end(client, &["08P01"]);
    });
}

#[test]
fn a_broken_startup_message_is_a_protocol_violation() {
    for body in [
        &b"user"[..],
        b"user\0app",
        b"user\0app\0database\0",
        b"user\0app\0\0extra\0",
    ] {
        survives(|_, client| {
            client.send(&startup_packet(PROTOCOL_3_0, body));
            assert_eq!(fatal(client).code(), "08P01");
        });
    }
}

#[test]
fn a_startup_message_without_user_is_refused() {
    survives(|_, client| {
        client.send(&startup_packet(
            PROTOCOL_3_0,
            &parameters(&[("database", "shop")]),
        ));
        assert_eq!(fatal(client).code(), "28000");
    });
}

#[test]
fn other_major_versions_are_refused() {
    survives(|_, client| {
        client.send(&startup_packet(4 << 16, &parameters(&[("user", "app")])));
        assert_eq!(fatal(client).code(), "0A000");
    });
    survives(|_, client| {
        // Such a client would not understand our errors.
        client.send(&startup_packet(2 << 16, &parameters(&[("user", "app")])));
        let said = client.read_bytes(1000);
        assert!(said.is_empty() || said[0] == b'E');
    });
}

/// Sends each request and expects `N`.
fn no_encryption(client: &mut Client, requests: &[i32]) {
    for request in requests {
        client.send(&startup_packet(*request, b""));
        assert_eq!(client.read_bytes(1), b"N");
    }
}

#[test]
fn encryption_requests_are_answered_in_either_order() {
    for requests in [
        &[SSL_REQUEST][..],
        &[GSSENC_REQUEST],
        &[SSL_REQUEST, GSSENC_REQUEST],
        &[GSSENC_REQUEST, SSL_REQUEST],
    ] {
        survives(|target, client| {
            no_encryption(client, requests);
            client.startup(target, &[]).expect("log in after it");
            assert_eq!(client.value("SELECT 1"), "1");
        });
    }
}

#[test]
fn an_encryption_request_is_not_answered_for_ever() {
    survives(|_, client| {
        no_encryption(client, &[SSL_REQUEST]);
        client.send(&startup_packet(SSL_REQUEST, b""));
        fatal_or_end(client, &["08P01", "0A000"]);
    });
}

/// Logs in as protocol 3.`minor` with more parameters; returns NegotiateProtocolVersion's contents if it came.
fn negotiate(minor: i32, options: &[(&str, &str)]) -> Option<(i32, Vec<String>)> {
    survives(|target, client| {
        let mut pairs = vec![
            ("user", target.user.as_str()),
            ("database", target.database.as_str()),
        ];
        pairs.extend_from_slice(options);
        client.send(&startup_packet(PROTOCOL_3_0 | minor, &parameters(&pairs)));
        let mut negotiated = None;
        loop {
            let message = client.read().expect("an answer");
            match message.tag {
                b'v' => negotiated = Some(negotiation(&message)),
                b'R' => break,
                _ => panic!("{message:?} {}", message.failure()),
            }
        }
        negotiated
    })
}

fn negotiation(message: &Message) -> (i32, Vec<String>) {
    let mut fields = message.fields();
    let minor = fields.int32();
    (
        minor & 0xffff,
        (0..fields.int32()).map(|_| fields.text()).collect(),
    )
}

#[test]
fn newer_minor_versions_and_unknown_options_are_negotiated() {
    assert_eq!(negotiate(0, &[]), None);
    let unknown = [("_pq_.one", "1"), ("_pq_.two", "2")];
    let names = vec!["_pq_.one".to_owned(), "_pq_.two".to_owned()];
    assert_eq!(negotiate(0, &unknown), Some((0, names.clone())));
    let (minor, options) = negotiate(9999, &unknown).expect("3.9999 is not spoken");
    assert!(minor <= 2);
    assert_eq!(options, names);
    // 3.2 is either spoken or negotiated down.
    if let Some((minor, options)) = negotiate(2, &[]) {
        assert_eq!((minor, options.len()), (0, 0));
    }
}

/// All messages of a login up to its end, as tags and error fields without the server's random parts.
fn login_shape(user: &str, password: &str) -> Vec<String> {
    survives(|target, client| {
        let target = target.user(user, password);
        let failure = client.startup(&target, &[]).expect_err("the login fails");
        assert_eq!(failure.code(), "28P01", "{failure}");
        assert!(client.read().is_none());
        let fields = failure
            .fields
            .iter()
            .map(|(code, text)| format!("{code}={}", text.replace(user, "<user>")));
        fields.collect()
    })
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let wrong = login_shape("app", "wrong");
    assert_eq!(wrong, login_shape("nobody at all", "wrong"));
    assert_eq!(wrong, login_shape("postgres", "wrong"));
    assert_eq!(wrong, login_shape("app", ""));
}

/// The first answer to a SCRAM exchange: salt and iterations.
fn scram_challenge(user: &str) -> (String, String) {
    survives(|target, client| {
        let parameters = parameters(&[("user", user), ("database", &target.database)]);
        client.send(&startup_packet(PROTOCOL_3_0, &parameters));
        let message = client.read().expect("an authentication request");
        assert_eq!((message.tag, message.fields().int32()), (b'R', 10));
        client.message(|buffer| {
            let first = b"n,,n=,r=rOprNGfwEbeRWgbNEkqO";
            postgres_protocol::message::frontend::sasl_initial_response(
                "SCRAM-SHA-256",
                first,
                buffer,
            )
        });
        let message = client.read().expect("a challenge");
        assert_eq!(
            (message.tag, message.fields().int32()),
            (b'R', 11),
            "{}",
            message.failure()
        );
        let text = String::from_utf8(message.body[4..].to_vec()).unwrap();
        let part = |name: &str| {
            text.split(',')
                .find_map(|part| part.strip_prefix(name))
                .expect(name)
                .to_owned()
        };
        assert!(part("r=").starts_with("rOprNGfwEbeRWgbNEkqO") && part("r=").len() > 30);
        (part("s="), part("i="))
    })
}

#[test]
fn an_unknown_user_gets_a_challenge_that_stays_the_same() {
    let (salt, iterations) = scram_challenge("app");
    let (unknown_salt, unknown_iterations) = scram_challenge("nobody at all");
    assert_eq!(iterations, unknown_iterations);
    assert_eq!(salt.len(), unknown_salt.len());
    assert_eq!(scram_challenge("app").0, salt);
    assert_eq!(scram_challenge("nobody at all").0, unknown_salt);
    assert_ne!(scram_challenge("somebody else").0, unknown_salt);
}

#[test]
fn rubbish_instead_of_scram_is_refused() {
    type Rubbish = (&'static str, &'static [u8]);
    let rubbish: [Rubbish; 5] = [
        ("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc"),
        ("PLAIN", b"\0app\0secret"),
        ("SCRAM-SHA-256", b""),
        ("SCRAM-SHA-256", b"x,,n=,r=abc"),
        ("SCRAM-SHA-256", &[0xff; 2000]),
    ];
    for (mechanism, first) in rubbish {
        survives(|target, client| {
            let parameters = parameters(&[("user", "app"), ("database", &target.database)]);
            client.send(&startup_packet(PROTOCOL_3_0, &parameters));
            client.read().expect("an authentication request");
            client.message(|buffer| {
                postgres_protocol::message::frontend::sasl_initial_response(
                    mechanism, first, buffer,
                )
            });
            let failure = fatal(client);
            assert!(
                matches!(failure.code(), "08P01" | "28P01" | "28000" | "22021"),
                "{failure}"
            );
        });
    }
}

#[test]
fn an_unknown_database_is_told_after_login_only() {
    let target = shared().target().database("nowhere");
    assert_eq!(
        target.login(&[]).err().expect("no such database").code(),
        "3D000"
    );
    assert_eq!(
        target
            .user("app", "wrong")
            .login(&[])
            .err()
            .expect("wrong password")
            .code(),
        "28P01"
    );
}

#[test]
fn wrong_startup_parameters_are_refused_as_postgresql_does() {
    let target = shared().target();
    for (name, value, code) in [
        ("nonsense", "1", "42704"),
        ("work_mem", "much", "22023"),
        ("options", "-c nonsense=1", "42704"),
        ("client_encoding", "klingon", "22023"),
    ] {
        let failure = target
            .login(&[(name, value)])
            .err()
            .unwrap_or_else(|| panic!("{name}={value} is wrong"));
        assert_eq!(
            (failure.severity(), failure.code()),
            ("FATAL", code),
            "{name}={value}: {failure}"
        );
    }
    let options = [
        ("options", "-c work_mem=5MB --statement-timeout=7000"),
        ("application_name", "a\\b 'c'"),
    ];
    let mut client = target.login(&options).expect("these are right");
    assert_eq!(client.value("SHOW work_mem"), "5MB");
    assert_eq!(client.value("SHOW statement_timeout"), "7s");
    assert_eq!(client.value("SHOW application_name"), "a\\b 'c'");
    assert_eq!(client.parameters["application_name"], "a\\b 'c'");
}

#[test]
fn replication_connections_are_refused() {
    for mode in ["true", "database"] {
        let failure = shared()
            .target()
            .login(&[("replication", mode)])
            .err()
            .expect("no replication");
        assert_eq!(failure.code(), "0A000", "{failure}");
    }
}

#[test]
fn the_parameters_that_drivers_need_are_reported_at_login() {
    let client = shared().target().connect();
    let mut direct = shared().one().connect();
    for name in [
        "server_version",
        "server_encoding",
        "client_encoding",
        "standard_conforming_strings",
        "integer_datetimes",
        "TimeZone",
        "DateStyle",
        "IntervalStyle",
        "is_superuser",
        "session_authorization",
        "in_hot_standby",
        "default_transaction_read_only",
    ] {
        assert_eq!(
            client.parameters.get(name),
            Some(&direct.value(&format!("SHOW {name}"))),
            "{name}"
        );
    }
    assert_eq!(client.parameters["session_authorization"], "app");
    assert_eq!(client.backend_key.len(), 8);
}

#[test]
fn a_malformed_message_after_login_ends_the_connection() {
    let query = |text: &[u8]| [&b"Q"[..], &(4 + text.len() as i32).to_be_bytes(), text].concat();
    let malformed: Vec<Vec<u8>> = vec![
        b"!\0\0\0\x04".to_vec(),
        b"Q\0\0\0\x03".to_vec(),
        b"Q\xff\xff\xff\xff".to_vec(),
        b"Q\x7f\xff\xff\xff".to_vec(),
        query(b"SELECT 1"),
        query(b"SELECT 1\0more\0"),
        b"B\0\0\0\x05\0".to_vec(),
        b"B\0\0\0\x0a\0\0\0\0\xff\xff".to_vec(),
        b"P\0\0\0\x08\0x\0\x7f".to_vec(),
        b"D\0\0\0\x06X\0".to_vec(),
        b"E\0\0\0\x05\0".to_vec(),
        b"p\0\0\0\x05\0".to_vec(),
    ];
    for bytes in malformed {
        survives(|target, client| {
            client.startup(target, &[]).expect("log in");
            client.read_timeout(Duration::from_secs(10));
            client.send(&bytes);
            // PostgreSQL goes on after some of these; then the Sync is answered.
            client.send(b"S\0\0\0\x04");
            let reply = client.reply();
            let failure = reply
                .failure
                .unwrap_or_else(|| panic!("{bytes:?} is no message"));
            assert!(
                failure.is_lost() || matches!(failure.code(), "08P01" | "54000" | "26000"),
                "{bytes:?}: {failure}"
            );
        });
    }
}

#[test]
fn a_function_call_is_answered_with_a_refusal() {
    survives(|target, client| {
        client.startup(target, &[]).expect("log in");
        client.send(b"F\0\0\0\x0e\0\0\x04\xd2\0\0\0\0\0\0");
        let reply = client.reply();
        assert_eq!(reply.failure.expect("not supported").code(), "0A000");
        assert_eq!(reply.status, 'I');
        assert_eq!(client.value("SELECT 1"), "1");
    });
}

#[test]
fn clients_over_the_limit_are_told_so() {
    let settings = "[limits]\nclients = 5";
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    let target = deployment.target();
    let mut clients: Vec<Client> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    // The probe that waited for the router may not have been counted out yet.
    while clients.len() < 5 && Instant::now() < deadline {
        clients.extend(target.login(&[]));
    }
    assert_eq!(clients.len(), 5);
    for _ in 0..20 {
        let failure = target.login(&[]).err().expect("one more than the limit");
        assert_eq!(
            (failure.severity(), failure.code()),
            ("FATAL", "53300"),
            "{failure}"
        );
    }
    assert_eq!(clients[0].value("SELECT 1"), "1");
    clients.pop();
    crate::support::eventually(Duration::from_secs(5), "room for another", || {
        target.login(&[]).is_ok()
    });
}

#[test]
fn a_login_that_takes_too_long_is_ended() {
    let settings = "[limits]\nlogin = \"1s\"\nunauthenticated_clients = 4";
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    let target = deployment.target();
    let started = Instant::now();
    let mut silent: Vec<Client> = (0..4).map(|_| target.socket().expect("connect")).collect();
    // One that says a byte now and then is no better.
    silent[0].send(&[0, 0]);
    let mut scram = target.socket().expect("connect");
    scram.send(&startup_packet(
        PROTOCOL_3_0,
        &parameters(&[("user", "app"), ("database", "shop")]),
    ));
    for mut client in silent {
        client.read_timeout(Duration::from_secs(10));
        while client.read().is_some() {}
    }
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(target.connect().value("SELECT 1"), "1");
}

#[test]
fn a_flood_of_unfinished_logins_does_not_keep_others_out() {
    let settings = "[limits]\nlogin = \"2s\"\nunauthenticated_clients = 20";
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    let target = deployment.target();
    let mut before = target.connect();
    let flood: Vec<Client> = (0..200).filter_map(|_| target.socket().ok()).collect();
    assert_eq!(before.value("SELECT 1"), "1", "who is in is not bothered");
    let served = || {
        target
            .login(&[])
            .is_ok_and(|mut client| client.value("SELECT 1") == "1")
    };
    crate::support::eventually(
        Duration::from_secs(10),
        "the flood is over at the latest by its time limit",
        served,
    );
    drop(flood);
}

#[test]
fn a_cancel_request_with_a_wrong_key_is_ignored() {
    survives(|target, client| {
        client.startup(target, &[]).expect("log in");
        let mut key = client.backend_key.clone();
        key[7] ^= 1;
        client.message(|buffer| {
            postgres_protocol::message::frontend::query("SELECT pg_sleep(0.3)", buffer)
        });
        target.cancel(&key);
        target.cancel(&[0; 8]);
        target.cancel(&[1; 200]);
        assert_eq!(client.reply().failure, None);
    });
}

#[test]
fn a_statement_that_was_not_closed_after_an_error_can_be_prepared_again() {
    let deployment = Deployment::shared()
        .schema("CREATE TABLE facts (id int PRIMARY KEY)")
        .sharded("facts", "id")
        .settings("[limits]\nbackend_prepared_statements = 1\n[pool]\nsize = 1")
        .start();
    let mut client = deployment.connect();
    let execute = |buffer: &mut bytes::BytesMut, name: &str| {
        frontend::bind("", name, [], [], |(), _| unreachable!(), [], buffer).ok();
        frontend::execute("", 0, buffer)
    };
    client.message(|buffer| {
        frontend::parse("one", "SELECT 1 FROM facts WHERE id = 1", [], buffer)?;
        execute(buffer, "one")?;
        frontend::sync(buffer);
        Ok(())
    });
    assert_eq!(client.reply().failure, None);
    // The second statement drives the first one out, but its place is never reached.
    client.message(|buffer| {
        frontend::parse(
            "",
            "SELECT 1 / count(*) FROM facts WHERE id = 1",
            [],
            buffer,
        )?;
        execute(buffer, "")?;
        frontend::parse("two", "SELECT 2 FROM facts WHERE id = 1", [], buffer)?;
        execute(buffer, "two")?;
        frontend::sync(buffer);
        Ok(())
    });
    assert_eq!(client.reply().failure.expect("an error").code(), "22012");
    client.message(|buffer| {
        execute(buffer, "one")?;
        frontend::sync(buffer);
        Ok(())
    });
    assert_eq!(client.reply().failure, None);
}

#[test]
fn a_function_call_ends_what_was_not_synced_and_takes_it_back() {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .start();
    let mut client = deployment.connect();
    let call = |client: &mut Client| client.send(b"F\0\0\0\x0e\0\0\x05\x11\0\0\0\0\0\0");
    let insert = |client: &mut Client, aid: &str| {
        client.message(|buffer| {
            let insert = format!("INSERT INTO accounts VALUES ({aid}, 0)");
            frontend::parse("", &insert, [], buffer)?;
            let none: [Option<&str>; 0] = [];
            let put = |_: Option<&str>, _: &mut bytes::BytesMut| Ok(postgres_protocol::IsNull::Yes);
            frontend::bind("", "", [], none, put, [], buffer)
                .map_err(|_| std::io::Error::other("bind"))?;
            frontend::execute("", 0, buffer)
        });
    };
    let tags = |client: &mut Client| {
        let mut tags = String::new();
        while !tags.ends_with('Z') {
            tags.push(char::from(client.read().expect("an answer").tag));
        }
        tags
    };
    call(&mut client);
    assert_eq!(tags(&mut client), "EZ");
    insert(&mut client, "1");
    call(&mut client);
    assert_eq!(tags(&mut client), "12CEZ");
    assert_eq!(
        client.value("SELECT count(*) FROM accounts WHERE aid = 1"),
        "0"
    );
    // After an error it is skipped as all else.
    insert(&mut client, "nope");
    call(&mut client);
    client.message(|buffer| {
        frontend::sync(buffer);
        Ok(())
    });
    assert_eq!(tags(&mut client), "EZ");
    client.run("BEGIN");
    insert(&mut client, "2");
    call(&mut client);
    assert_eq!(tags(&mut client), "12CEZ");
    assert_eq!(client.fails("SELECT 1").code(), "25P02");
    client.run("ROLLBACK");
    assert_eq!(
        client.value("SELECT count(*) FROM accounts WHERE aid = 2"),
        "0"
    );
}
