//! Requests under an allow-list, with a wire that records what would be sent.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bowline_sandbox::egress::{
    Allow, Credential, EgressError, EgressLimits, Guarded, Outside as _, Request, Response, Wire,
};
use bytes::Bytes;

/// Names with their addresses, answers by URL, and what was sent.
#[derive(Debug, Default)]
struct Fake {
    names: Mutex<BTreeMap<&'static str, Vec<&'static str>>>,
    answers: BTreeMap<&'static str, (u16, &'static str, &'static str)>,
    sent: Mutex<Vec<(Request, Vec<SocketAddr>)>>,
    silent: bool,
}

impl Fake {
    fn new(names: &[(&'static str, &[&'static str])]) -> Self {
        let names = names
            .iter()
            .map(|(name, at)| (*name, at.to_vec()))
            .collect();
        Self {
            names: Mutex::new(names),
            ..Self::default()
        }
    }

    /// Answers with a status, a header `location` (or none) and a body.
    fn answer(mut self, url: &'static str, answer: (u16, &'static str, &'static str)) -> Self {
        self.answers.insert(url, answer);
        self
    }

    fn sent(&self) -> Vec<(Request, Vec<SocketAddr>)> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait]
impl Wire for Fake {
    async fn resolve(&self, host: &str, _: u16) -> Result<Vec<IpAddr>, String> {
        let mut names = self.names.lock().unwrap();
        let found = names.get_mut(host).ok_or("its name is not known")?;
        let all = found
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        Ok(all)
    }

    async fn exchange(
        &self,
        request: Request,
        to: &[SocketAddr],
        limit: u64,
    ) -> Result<Response, EgressError> {
        if self.silent {
            std::future::pending::<()>().await;
        }
        self.sent
            .lock()
            .unwrap()
            .push((request.clone(), to.to_vec()));
        let plain = request.url.split('?').next().unwrap();
        let (status, location, body) = self.answers.get(plain).copied().unwrap_or((200, "", "ok"));
        // As a service that echoes what it is sent.
        let body = format!("{body} {:?} {}", request.headers, request.url);
        if body.len() as u64 > limit {
            return Err(EgressError::ResponseTooLarge(limit));
        }
        let headers = [("location", location)];
        let headers = headers.iter().filter(|(_, value)| !value.is_empty());
        Ok(Response {
            status,
            url: request.url,
            headers: headers
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            body: Bytes::from(body),
        })
    }
}

fn guarded(wire: &Arc<Fake>, allow: &[&str]) -> Guarded {
    Guarded::new(
        wire.clone(),
        Allow::new(allow).unwrap(),
        EgressLimits::default(),
    )
}

#[test]
fn patterns_match_hosts_ports_and_whole_names_of_a_path() {
    let allows = |pattern: &str, url: &str| Allow::new([pattern]).unwrap().check(url).is_ok();
    for (pattern, url) in [
        ("api.example.com", "https://api.example.com/any?x=1"),
        ("api.example.com", "http://api.example.com:80/"),
        ("API.Example.com", "https://api.EXAMPLE.com./"),
        ("*.example.com", "https://a.b.example.com/"),
        ("*", "https://anything.test/"),
        ("localhost:*", "http://localhost:1234/"),
        ("[::1]:8080", "http://[::1]:8080/"),
        ("https://a.test/v1/", "https://a.test/v1"),
        ("a.test/v1", "https://a.test/v0/../v1/items"),
        ("bücher.test", "https://xn--bcher-kva.test/"),
        ("127.0.0.1", "http://2130706433/"),
    ] {
        assert!(allows(pattern, url), "{pattern} {url}");
    }
    for (pattern, url) in [
        ("api.example.com", "https://api.example.com:8443/"),
        ("api.example.com", "https://api.example.com.evil.test/"),
        ("api.example.com", "https://evil.test/api.example.com"),
        ("api.example.com", "https://api.example.com@evil.test/"),
        ("api.example.com", "ftp://api.example.com/"),
        ("*.example.com", "https://example.com/"),
        ("*.example.com", "https://notexample.com/"),
        ("https://a.test", "http://a.test/"),
        ("a.test/v1", "https://a.test/v10"),
        ("a.test/v1", "https://a.test/v1/%2e%2e/admin"),
        ("a.test/v1", "https://a.test/v1/..%2fadmin"),
        ("a.test/v1", "https://a.test/v1/%5c..%5cadmin"),
        ("a.test/v1", "https://a.test/v1\\..\\admin"),
    ] {
        assert!(!allows(pattern, url), "{pattern} {url}");
    }
    for pattern in [
        "",
        "*.",
        "a*.test",
        "ftp://a.test",
        "a.test:0",
        "a.test:x",
        "u@a.test",
        "a.test/../b",
        "a b",
        "*.127.0.0.1",
    ] {
        assert!(Allow::new([pattern]).is_err(), "{pattern}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_public_is_reached_only_where_it_was_written_out() {
    let wire = Arc::new(Fake::new(&[
        ("public.test", &["93.184.216.34"]),
        ("rebound.test", &["93.184.216.34", "169.254.169.254"]),
        ("inside.test", &["10.1.2.3"]),
        ("trick.test", &["127.0.0.1"]),
        ("mapped.test", &["::ffff:10.0.0.1"]),
        ("localhost", &["127.0.0.1", "::1"]),
    ]));
    let get = |allow: &'static [&'static str], url: &'static str| {
        let guarded = guarded(&wire, allow);
        async move { guarded.send(Request::get(url)).await.map(|r| r.status) }
    };
    assert_eq!(get(&["*"], "https://public.test/").await, Ok(200));
    assert_eq!(wire.sent()[0].1, ["93.184.216.34:443".parse().unwrap()]);
    for (allow, url) in [
        (&["*"][..], "https://rebound.test/"),
        (&["rebound.test"], "https://rebound.test/"),
        (&["*", "*.test"], "https://inside.test/"),
        (&["*"], "https://mapped.test/"),
        (&["trick.test"], "https://trick.test/"),
        (&["*"], "http://localhost/"),
        (&["*"], "http://127.0.0.1/"),
        (&["*"], "http://0x7f.1/"),
        (&["*"], "http://[::ffff:127.0.0.1]/"),
        (&["*"], "http://[64:ff9b::a00:1]/"),
        (&["*"], "http://169.254.169.254/latest/meta-data"),
    ] {
        assert!(
            matches!(get(allow, url).await, Err(EgressError::Private(_))),
            "{allow:?} {url}"
        );
    }
    assert_eq!(wire.sent().len(), 1);
    assert_eq!(get(&["inside.test"], "https://inside.test/").await, Ok(200));
    assert_eq!(
        get(&["localhost:8080"], "http://localhost:8080/").await,
        Ok(200)
    );
    assert_eq!(
        get(&["127.0.0.1:9000"], "http://127.0.0.1:9000/").await,
        Ok(200)
    );
}

#[tokio::test]
async fn a_redirect_never_leaves_the_list_and_carries_nothing_elsewhere() {
    let wire = Arc::new(
        Fake::new(&[
            ("a.test", &["1.1.1.1"]),
            ("b.test", &["1.0.0.1"]),
            ("evil.test", &["9.9.9.9"]),
        ])
        .answer("https://a.test/other", (302, "https://b.test/there", ""))
        .answer("https://a.test/away", (307, "https://evil.test/", ""))
        .answer(
            "https://a.test/inside",
            (302, "http://169.254.169.254/", ""),
        )
        .answer("https://a.test/file", (302, "file:///etc/passwd", ""))
        .answer("https://a.test/round", (302, "/round", "")),
    );
    let guarded =
        guarded(&wire, &["a.test", "b.test"]).with_credential(Credential::bearer("hunter2-secret"));
    let post = |path: &str| Request {
        method: "POST".into(),
        url: format!("https://a.test{path}"),
        headers: vec![
            ("Cookie".into(), "mine".into()),
            ("content-type".into(), "text/plain".into()),
            ("authorization".into(), "Bearer forged".into()),
        ],
        body: Bytes::from_static(b"body"),
    };
    let answer = guarded.send(post("/other")).await.unwrap();
    assert_eq!(answer.url, "https://b.test/there");
    let sent = wire.sent();
    assert_eq!(
        sent[0]
            .0
            .headers
            .iter()
            .filter(|(n, _)| n == "authorization")
            .collect::<Vec<_>>(),
        [&(
            "authorization".to_owned(),
            "Bearer hunter2-secret".to_owned()
        )]
    );
    let second = &sent[1].0;
    assert_eq!((second.method.as_str(), second.body.len()), ("GET", 0));
    assert!(second.headers.is_empty(), "{:?}", second.headers);
    for (path, wanted) in [
        ("/away", "egress_denied"),
        ("/inside", "egress_denied"),
        ("/file", "egress_invalid"),
        ("/round", "egress_redirects"),
    ] {
        assert_eq!(
            guarded.send(post(path)).await.unwrap_err().code(),
            wanted,
            "{path}"
        );
    }
    assert!(
        wire.sent()
            .iter()
            .all(|(request, _)| !request.url.contains("evil"))
    );
}

#[tokio::test]
async fn a_credential_is_attached_here_and_taken_out_of_what_comes_back() {
    let wire = Arc::new(Fake::new(&[("a.test", &["1.1.1.1"])]));
    for credential in [
        Credential::header("x-api-key", "s3cret-value"),
        Credential::bearer("s3cret-value"),
        Credential::basic("user:s3cret-value"),
        Credential::query("key", "s3cret-value"),
    ] {
        assert!(!format!("{credential:?}").contains("s3cret"));
        let guarded = guarded(&wire, &["a.test"]).with_credential(credential);
        let answer = guarded
            .send(Request::get("https://a.test/?key=forged&x=1"))
            .await
            .unwrap();
        let sent = format!(
            "{:?} {}",
            wire.sent().last().unwrap().0.headers,
            wire.sent().last().unwrap().0.url
        );
        assert!(
            sent.contains("s3cret") || sent.contains("dXNlcjpzM2NyZXQtdmFsdWU="),
            "{sent}"
        );
        let seen = format!("{} {}", String::from_utf8_lossy(&answer.body), answer.url);
        assert!(
            !seen.contains("s3cret") && !seen.contains("dXNlcjpzM2"),
            "{seen}"
        );
        assert!(
            seen.contains("[redacted]") && seen.contains("x=1"),
            "{seen}"
        );
        let plain = guarded
            .send(Request::get("http://a.test/"))
            .await
            .unwrap_err();
        assert!(plain.to_string().contains("plain HTTP"), "{plain}");
    }
}

#[tokio::test]
async fn each_host_gets_its_own_credential_and_a_redirect_gets_none() {
    let wire = Arc::new(
        Fake::new(&[
            ("a.test", &["1.1.1.1"]),
            ("b.test", &["1.0.0.1"]),
            ("c.test", &["9.9.9.9"]),
            ("d.sub.test", &["9.9.9.9"]),
        ])
        .answer("https://a.test/away", (302, "https://b.test/there", ""))
        .answer("https://c.test/to", (302, "https://b.test/back", ""))
        .answer("https://b.test/back", (302, "https://c.test/", ""))
        .answer("https://b.test/round", (302, "https://c.test/home", ""))
        .answer("https://c.test/home", (302, "https://b.test/", "")),
    );
    let (whole, part, other) = ("secret-of-a", "secret-of-a-org", "secret-of-b");
    let to = |pattern| Allow::new([pattern]).unwrap();
    let allow = ["a.test", "b.test", "c.test", "http://b.test", "*.sub.test"];
    let guarded = guarded(&wire, &allow)
        .with_credential_for(to("d.sub.test"), Credential::bearer(whole))
        .with_credential_for(to("a.test"), Credential::bearer(whole))
        .with_credential_for(to("a.test/org"), Credential::bearer(part))
        .with_credential_for(to("b.test"), Credential::query("key", other));
    // What each request of an exchange carried.
    let carried = async |url: &str| {
        let before = wire.sent().len();
        let request = Request {
            headers: vec![
                ("Accept-Encoding".into(), "gzip".into()),
                ("range".into(), "bytes=0-3".into()),
            ],
            ..Request::get(url)
        };
        let answer = guarded.send(request).await.unwrap();
        let seen = format!("{:?} {}", answer.body, answer.url);
        assert!(!seen.contains("secret-of"), "{url}: {seen}");
        let found = wire.sent().split_off(before).into_iter().map(|(sent, _)| {
            let sent = format!("{:?} {}", sent.headers, sent.url);
            let hidden = sent.to_ascii_lowercase().contains("accept-encoding");
            let secret = [part, whole, other].into_iter().find(|s| sent.contains(s));
            assert_eq!(hidden, secret.is_none(), "{sent}");
            secret.unwrap_or_default()
        });
        found.collect::<Vec<_>>()
    };
    assert_eq!(carried("https://a.test/x").await, [whole]);
    assert_eq!(carried("https://a.test/organ").await, [whole]);
    assert_eq!(carried("https://a.test/org/x").await, [part]);
    assert_eq!(carried("https://b.test/?key=mine&x=1").await, [other]);
    assert_eq!(carried("https://c.test/?key=mine").await, [""]);
    // Only a wildcard allows this host.
    assert_eq!(carried("https://d.sub.test/").await, [""]);
    // Neither the own one nor that of the host that it leads to.
    assert_eq!(carried("https://a.test/away").await, [whole, ""]);
    assert_eq!(carried("https://c.test/to").await, ["", "", ""]);
    // Not even back at the first host.
    assert_eq!(carried("https://b.test/round").await, [other, "", ""]);
    let plain = guarded.send(Request::get("http://b.test/")).await;
    let plain = plain.unwrap_err().to_string();
    assert!(plain.contains("plain HTTP"), "{plain}");

    for (one, two, meets) in [
        ("a.test", "a.test/org", true),
        ("*", "a.test", true),
        ("*.test", "a.test:8443", false),
        ("*.test:*", "a.test:8443", true),
        ("http://a.test", "https://a.test", false),
        ("a.test/org", "a.test/organ", false),
        ("*.a.test", "a.test", false),
    ] {
        assert_eq!(to(one).meets(&to(two)), meets, "{one} {two}");
        assert_eq!(to(two).meets(&to(one)), meets, "{two} {one}");
    }
    let both = Allow::new(["a.test", "*"]).unwrap();
    assert_eq!(both.named(), to("a.test"));
    assert!(to("a.test").names_hosts() && !to("*.test").names_hosts());
}

#[tokio::test(start_paused = true)]
async fn requests_are_bounded_in_time_size_and_form() {
    let limits = EgressLimits {
        time: Duration::from_secs(2),
        request: 4,
        response: 10,
        concurrency: 1,
        ..EgressLimits::default()
    };
    let silent = Arc::new(Fake {
        silent: true,
        ..Fake::new(&[("a.test", &["1.1.1.1"])])
    });
    let slow = Guarded::new(silent, Allow::new(["a.test"]).unwrap(), limits);
    // The second waits for the first, and its time runs as well.
    let both = tokio::join!(
        slow.send(Request::get("https://a.test/")),
        slow.send(Request::get("https://a.test/"))
    );
    assert_eq!(
        (both.0.unwrap_err().code(), both.1.unwrap_err().code()),
        ("egress_timeout", "egress_timeout")
    );

    let wire = Arc::new(Fake::new(&[("a.test", &["1.1.1.1"])]));
    let guarded = Guarded::new(wire.clone(), Allow::new(["a.test"]).unwrap(), limits);
    let with = |change: fn(&mut Request)| {
        let mut request = Request::get("https://a.test/");
        change(&mut request);
        let guarded = guarded.clone();
        async move { guarded.send(request).await.unwrap_err().code() }
    };
    assert_eq!(with(|_| {}).await, "egress_response_too_large");
    assert_eq!(
        with(|r| r.body = Bytes::from_static(b"12345")).await,
        "egress_request_too_large"
    );
    let before = wire.sent().len();
    assert_eq!(
        with(|r| r.headers = vec![("Host".into(), "b".into())]).await,
        "egress_invalid"
    );
    assert_eq!(
        with(|r| r.headers = vec![("x".into(), "a\r\nb: c".into())]).await,
        "egress_invalid"
    );
    assert_eq!(
        with(|r| r.headers = vec![("x y".into(), "a".into())]).await,
        "egress_invalid"
    );
    assert_eq!(
        with(|r| r.method = "GET / HTTP/1.1\r\n".into()).await,
        "egress_invalid"
    );
    assert_eq!(
        with(|r| r.method = "CONNECT".into()).await,
        "egress_invalid"
    );
    assert_eq!(
        with(|r| r.url = "https://unknown.test/".into()).await,
        "egress_denied"
    );
    assert_eq!(wire.sent().len(), before);
}
