//! Rate limits: shared by the instances, per caller and bucket, and without Redis.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use bme_service::config::{ApiConfig, LimitsConfig};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::harness::{Call, Instance, Redis, User, World, eventually, token_for};
use crate::mcp;

fn limited(config: &ApiConfig) -> ApiConfig {
    limited_to(3, config)
}

fn limited_to(limit: u32, config: &ApiConfig) -> ApiConfig {
    let few = NonZeroU32::new(limit).unwrap();
    ApiConfig { limits: LimitsConfig { login: few, voice: few, rest: few }, ..config.clone() }
}

/// An address that no other test counts for.
fn unique_ip() -> String {
    let [a, b, c, ..] = *Uuid::new_v5(&Uuid::now_v7(), b"ip").as_bytes();
    format!("10.{a}.{b}.{c}")
}

fn login(ip: &str) -> Call {
    Call::post("/api/auth/login", "{}").header("x-forwarded-for", ip)
}

fn list(user: &User, ip: &str) -> Call {
    Call::get("/api/transactions").header("x-forwarded-for", ip).by(user)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_count_together_and_nothing_buys_more() {
    let world = World::new().await;
    let config = limited(&world.config);
    let (one, two) = (Instance::start(&config).await, Instance::start(&config).await);
    let ip = unique_ip();
    let list = |forwarded: &str| {
        Call::get("/api/transactions")
            .header("authorization", "Bearer wrong")
            .header("x-forwarded-for", forwarded)
    };
    for (instance, left) in [(&one, "2"), (&two, "1"), (&one, "0")] {
        let reply = list(&ip).send(instance).await;
        assert_eq!(reply.problem(401), "unauthorized");
        assert_eq!(reply.header("ratelimit-limit"), Some("3"));
        assert_eq!(reply.header("ratelimit-remaining"), Some(left));
    }
    let refused = list(&format!("6.6.6.6, {ip}")).send(&two).await;
    assert_eq!(refused.problem(429), "rate-limited");
    assert_eq!(refused.header("ratelimit-remaining"), Some("0"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{refused}");

    // Others: other buckets, a signed-in user, the probes.
    assert_eq!(login(&ip).send(&one).await.header("ratelimit-remaining"), Some("2"));
    let voice = Call::post("/api/voice/understand", "{}").header("x-forwarded-for", &ip);
    assert_eq!(voice.send(&one).await.header("ratelimit-remaining"), Some("2"));
    let user = world.user().await;
    let own = Call::get("/api/transactions").header("x-forwarded-for", &ip).by(&user);
    assert_eq!(own.send(&one).await.status, 200);
    let probe = Call::get("/health").header("x-forwarded-for", &ip).send(&one).await;
    assert_eq!((probe.status, probe.header("ratelimit-limit")), (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_one_caller_with_any_token_from_any_address() {
    let world = World::new().await;
    let instance = Instance::start(&limited(&world.config)).await;
    let (user, other) = (world.user().await, world.user().await);
    let ips = [unique_ip(), unique_ip()];
    let list = |user: &User, ip: &str| list(user, ip).send(&instance);
    let again = User { id: user.id, token: token_for(user.id) };
    for (user, ip, left) in [(&user, &ips[0], "2"), (&again, &ips[0], "1"), (&again, &ips[1], "0")]
    {
        let reply = list(user, ip).await;
        assert_eq!((reply.status, reply.header("ratelimit-remaining")), (200, Some(left)));
    }
    let refused = list(&user, &ips[1]).await;
    assert_eq!(refused.problem(429), "rate-limited");
    assert_eq!(list(&other, &ips[0]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_refused_is_served_when_retry_after_says() {
    let world = World::new().await;
    // One more every 5 s.
    let instance = Instance::start(&limited_to(12, &world.config)).await;
    let (user, ip) = (world.user().await, unique_ip());
    let mut refused = None;
    eventually("the limit", async || {
        let started = Instant::now();
        let reply = list(&user, &ip).send(&instance).await;
        let is_refused = reply.status == 429;
        refused = Some((reply, started));
        is_refused
    })
    .await;
    let (refused, asked) = refused.unwrap();
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{refused}");
    eventually("the next turn", async || list(&user, &ip).send(&instance).await.status == 200)
        .await;
    // Whole seconds are told.
    assert!(asked.elapsed() > Duration::from_secs(wait - 1), "{:?}", asked.elapsed());
    assert_eq!(list(&user, &ip).send(&instance).await.problem(429), "rate-limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_redis_was_away_the_limit_holds_again() {
    let world = World::new().await;
    let mut redis = Redis::start();
    let instance = Instance::start(&limited(&world.with_redis(&redis.url()))).await;
    let (user, ip) = (world.user().await, unique_ip());
    // Whether it was served, and whether it was counted: counted replies have the headers.
    let ask = async || {
        let reply = list(&user, &ip).send(&instance).await;
        let is_counted = reply.header("ratelimit-limit").is_some();
        if reply.status == 429 {
            assert_eq!(reply.problem(429), "rate-limited");
        } else {
            assert_eq!(reply.status, 200, "{reply}");
        }
        (reply.status == 200, is_counted)
    };
    let refused_after = async |most: u32| {
        let mut counted = 0;
        eventually("the limit", async || {
            let (is_served, is_counted) = ask().await;
            counted += u32::from(is_served && is_counted);
            !is_served
        })
        .await;
        assert!(counted <= most, "{counted} served");
    };
    refused_after(3).await;
    redis.stop();
    for _ in 0..5 {
        assert_eq!(ask().await, (true, false));
    }
    redis.start_again();
    refused_after(3).await;
}

/// Whatever ends in a session, or in a mail, is counted with the logins, by either name of the API.
#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_counts_as_a_login() {
    let mut world = World::new().await;
    // The limit that an answer tells is that of its bucket.
    world.config.limits.login = NonZeroU32::new(4_000).unwrap();
    world.config.limits.voice = NonZeroU32::new(5_000).unwrap();
    world.config.limits.rest = NonZeroU32::new(6_000).unwrap();
    let instance = Instance::start(&world.config).await;
    let ip = unique_ip();
    let limit = async |path: &str| {
        let reply = Call::post(path, "{}").header("x-forwarded-for", &ip).send(&instance).await;
        reply.header("ratelimit-limit").unwrap_or_else(|| panic!("{path}: {reply}")).to_owned()
    };
    for way in [
        "login",
        "register",
        "refresh",
        "logout",
        "exchange-code",
        "google",
        "facebook",
        "forgot-password",
        "reset-password",
    ] {
        for version in ["", "/v1"] {
            assert_eq!(limit(&format!("/api{version}/auth/{way}")).await, "4000", "{way}");
        }
    }
    for version in ["", "/v1"] {
        assert_eq!(limit(&format!("/api{version}/voice/understand")).await, "5000");
        assert_eq!(limit(&format!("/api{version}/goals")).await, "6000");
    }
}

/// Assistants of many people share few addresses.
#[tokio::test(flavor = "multi_thread")]
async fn an_assistant_counts_for_whom_it_acts() {
    let world = World::new().await;
    let user = world.user().await;
    let instance = Instance::start(&limited(&mcp::config(&world, &user, &[]))).await;
    let ip = unique_ip();
    let list = |token: &str| {
        let call = mcp::tool("list_goals", "{}").header("x-forwarded-for", &ip);
        mcp::with_token(call, token).send(&instance)
    };
    for left in ["2", "1", "0"] {
        let reply = list(mcp::SECRET).await;
        assert_eq!((reply.status, reply.header("ratelimit-remaining")), (200, Some(left)));
    }
    assert_eq!(list(mcp::SECRET).await.problem(429), "rate-limited");
    // Who only guesses counts for the address, which is nobody's yet; and the user's own calls are one
    // with the assistant's.
    let guessed = list("guessed").await;
    assert_eq!((guessed.status, guessed.header("ratelimit-remaining")), (401, Some("2")));
    let own = Call::get("/api/goals").by(&user).send(&instance).await;
    assert_eq!(own.problem(429), "rate-limited");
}

/// Refusals are on record, and a flood of them is no flood of writes.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_an_assistant_are_recorded_once_a_minute() {
    let world = World::new().await;
    let user = world.user().await;
    let config = limited(&mcp::config(&world, &user, &[]));
    let instances = [Instance::start(&config).await, Instance::start(&config).await];
    let ip = unique_ip();
    for token in [mcp::SECRET, "guessed"] {
        let calls = (0..20).map(|number: usize| {
            let call = mcp::tool("list_goals", "{}").header("x-forwarded-for", &ip);
            mcp::with_token(call, token).send(&instances[number % 2])
        });
        let replies = join_all(calls).await;
        let refused = replies.iter().filter(|reply| reply.status == 429).count();
        assert_eq!(refused, 17, "{token}");
    }
    eventually("every record", async || {
        instances.iter().all(|instance| instance.app.lifecycle.tasks.is_empty())
    })
    .await;
    let rows = mcp::audit(&world).await;
    let refused = |user: Option<Uuid>| {
        rows.iter().filter(move |row| row.0 == user && row.4 == "refused").collect::<Vec<_>>()
    };
    let expected: mcp::Row = (Some(user.id), String::new(), None, vec![], "refused".into());
    assert_eq!(refused(Some(user.id)), [&expected]);
    // Nobody's secret: each of the three guesses, and the first that was one too many.
    assert_eq!(refused(None).len(), 4);
    assert_eq!(rows.len(), 3 + 1 + 4, "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_only_logins_are_limited() {
    let world = World::new().await;
    let config = limited(&world.with_redis("redis://127.0.0.1:1"));
    let instance = Instance::start(&config).await;
    let ip = unique_ip();
    for _ in 0..5 {
        let call = Call::get("/api/transactions").header("x-forwarded-for", &ip);
        assert_eq!(call.send(&instance).await.status, 401);
    }
    for _ in 0..3 {
        assert_eq!(login(&ip).send(&instance).await.problem(422), "validation");
    }
    assert_eq!(login(&ip).send(&instance).await.problem(429), "rate-limited");
}
