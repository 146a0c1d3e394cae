//! Statements that are believed, and a generated table of those that are not (RFC 8725): every lie about the algorithm, the
//! key, the times, the audience and the names, with valid signatures wherever the lie allows one.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use hmac::Mac as _;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use toolkeep_core::refusal::Code;

use super::*;

/// A moment, in seconds since the Unix epoch.
const NOW_S: u64 = 1_800_000_000;

/// The private keys of an issuer.
struct Signer {
    random: SystemRandom,
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let rsa: String = include_str!("testdata/rsa.txt").split_whitespace().collect();
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).expect("a key"),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).expect("a key"),
            rsa: RsaKeyPair::from_der(&STANDARD.decode(rsa).expect("base64")).expect("a key"),
            random,
        }
    }

    /// Sign as a key does whose id is that of an algorithm.
    fn sign(&self, key: &str, message: &[u8]) -> Vec<u8> {
        match key {
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "ES256" => self.ec.sign(&self.random, message).expect("signed").as_ref().to_vec(),
            "RS256" | "PS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding =
                    if key == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                self.rsa.sign(padding, &self.random, message, &mut signature).expect("signed");
                signature
            }
            other => panic!("no key {other}"),
        }
    }

    fn set(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "alg": "EdDSA", "use": "sig",
                "x": encoded(self.ed.public_key().as_ref())},
            {"kty": "EC", "crv": "P-256", "kid": "ES256", "x": encoded(&point[1..33]), "y": encoded(&point[33..])},
            {"kty": "RSA", "kid": "RS256", "n": encoded(&rsa.n), "e": encoded(&rsa.e), "key_ops": ["verify"]},
        ]})
    }
}

fn config() -> IssuerConfig {
    let text = toml::from_str::<config::IssuerText>(
        "name = \"corp\"\nissuer = \"https://login.example\"\naudience = \"toolkeep\"\njwks_file = \"/keys.json\"\n\
         tenant_claim = \"org\"\ntenants = [\"acme\", \"globex\"]\nagent_claim = \"client\"\n",
    );
    text.expect("a text").check(None).expect("valid")
}

/// Issuers of one with these keys.
fn issuers(config: IssuerConfig, set: &Value) -> Issuers {
    let keys = Keys::read(set.to_string().as_bytes(), &config.algorithms).expect("a key set");
    let issuers = Issuers::new(vec![config]);
    issuers.0[0].keys.store(Arc::new(keys));
    issuers.0[0].tried_ms.store(NOW_S * 1_000, Ordering::Release);
    issuers
}

fn header(key: &str) -> Value {
    json!({"alg": key, "kid": key, "typ": "JWT"})
}

fn claims() -> Value {
    json!({"iss": "https://login.example", "aud": "toolkeep", "exp": NOW_S + 600, "nbf": NOW_S, "iat": NOW_S,
        "org": "acme", "sub": "alice", "client": "helper", "email": "alice@example.com"})
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()))
}

/// A statement with a signature that fits it.
fn signed(signer: &Signer, key: &str, header: &Value, claims: &Value) -> String {
    let message = unsigned(header, claims);
    let signature = signer.sign(key, message.as_bytes());
    format!("{message}.{}", encoded(&signature))
}

fn with(mut value: Value, name: &str, member: Value) -> Value {
    value[name] = member;
    value
}

fn without(mut value: Value, name: &str) -> Value {
    value.as_object_mut().expect("an object").remove(name);
    value
}

fn judged(issuers: &Issuers, text: &str) -> Result<Stated, Rejected> {
    let judged = issuers.judge(text, NOW_S * 1_000);
    if judged.is_err() {
        let refusal = issuers.verify(text, NOW_S * 1_000).expect_err("refused");
        assert_eq!(refusal.code, Code::Unauthorized);
    }
    judged
}

#[test]
fn r15_a_statement_of_an_issuer_says_who_somebody_is() {
    let signer = Signer::new();
    let issuers = issuers(config(), &signer.set());
    for key in ["EdDSA", "ES256", "RS256"] {
        let stated = judged(&issuers, &signed(&signer, key, &header(key), &claims())).expect(key);
        let principal = &stated.principal;
        let names = (principal.tenant.as_str(), principal.user.as_str(), principal.agent.as_str());
        assert_eq!((names, &*stated.issuer), (("acme", "alice", "helper"), "corp"));
        assert_eq!(stated.expires_ms, (NOW_S + 630) * 1_000, "with what clocks may be apart");
    }
    let other = with(claims(), "org", json!("globex"));
    let many = with(other, "aud", json!(["another", "toolkeep"]));
    let stated = judged(&issuers, &signed(&signer, "EdDSA", &header("EdDSA"), &many)).expect("believed");
    assert_eq!(stated.principal.tenant.as_str(), "globex");
    for typ in ["jwt", "at+jwt", "application/at+jwt"] {
        let header = with(header("EdDSA"), "typ", json!(typ));
        judged(&issuers, &signed(&signer, "EdDSA", &header, &claims())).expect(typ);
    }
    judged(&issuers, &signed(&signer, "EdDSA", &without(header("EdDSA"), "typ"), &claims())).expect("no type");
}

/// Every key with every algorithm that a header could name: only a key's own is ever taken.
#[test]
fn t_i5_the_algorithm_is_that_of_the_key_whatever_the_header_says() {
    let signer = Signer::new();
    let issuers = issuers(config(), &signer.set());
    let named = [
        "EdDSA",
        "ES256",
        "RS256",
        "none",
        "None",
        "NONE",
        "nOnE",
        "HS256",
        "HS384",
        "HS512",
        "PS256",
        "RS384",
        "ES384",
        "ES256K",
        "Ed25519",
        "eddsa",
        "rs256",
        " EdDSA",
        "EdDSA\u{0}",
        "dir",
    ];
    let mut taken = 0;
    for key in ["EdDSA", "ES256", "RS256"] {
        for signs in ["EdDSA", "ES256", "RS256", "PS256"] {
            for algorithm in named {
                let header = with(header(key), "alg", json!(algorithm));
                let result = judged(&issuers, &signed(&signer, signs, &header, &claims()));
                if key == signs && key == algorithm {
                    assert!(result.is_ok(), "{key} {result:?}");
                    taken += 1;
                } else {
                    let wanted = if key == algorithm { Rejected::Signature } else { Rejected::Algorithm };
                    assert_eq!(result, Err(wanted), "key {key}, signed as {signs}, says {algorithm}");
                }
            }
        }
        for wrong in [json!(null), json!(1), json!(["EdDSA"]), json!("")] {
            let header = with(header(key), "alg", wrong);
            assert!(matches!(judged(&issuers, &signed(&signer, key, &header, &claims())), Err(Rejected::Header(_))));
        }
        let bare = format!("{}.", unsigned(&with(header(key), "alg", json!("none")), &claims()));
        assert!(matches!(judged(&issuers, &bare), Err(Rejected::Form(_))), "an empty signature is none");
    }
    assert_eq!(taken, 3);
}

/// Public keys are no secrets of HMAC, in whatever spelling they are tried.
#[test]
fn t_i5_a_public_key_is_never_the_secret_of_a_symmetric_signature() {
    let signer = Signer::new();
    let set = signer.set();
    let issuers = issuers(config(), &set);
    let mut secrets: Vec<Vec<u8>> =
        vec![Vec::new(), set.to_string().into_bytes(), signer.rsa.public().as_ref().to_vec()];
    for key in set["keys"].as_array().expect("keys") {
        secrets.push(key.to_string().into_bytes());
        for part in ["x", "y", "n", "e", "kid"] {
            if let Some(text) = key[part].as_str() {
                secrets.push(text.as_bytes().to_vec());
                secrets.extend(URL_SAFE_NO_PAD.decode(text));
            }
        }
    }
    for key in ["EdDSA", "ES256", "RS256"] {
        for secret in &secrets {
            for algorithm in ["HS256", key] {
                let message = unsigned(&with(header(key), "alg", json!(algorithm)), &claims());
                let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret).expect("any length");
                mac.update(message.as_bytes());
                let text = format!("{message}.{}", encoded(&mac.finalize().into_bytes()));
                assert!(
                    matches!(judged(&issuers, &text), Err(Rejected::Algorithm | Rejected::Signature)),
                    "{algorithm}"
                );
            }
        }
    }
}

#[test]
fn t_i5_a_header_brings_no_key_and_no_rules_of_its_own() {
    let signer = Signer::new();
    let set = signer.set();
    let issuers = issuers(config(), &set);
    for name in HEADERS_REFUSED {
        for value in [json!("https://evil.example/keys"), set["keys"][0].clone(), json!([]), json!(null), json!(false)]
        {
            let header = with(header("EdDSA"), name, value);
            let result = judged(&issuers, &signed(&signer, "EdDSA", &header, &claims()));
            assert!(matches!(result, Err(Rejected::Header(_))), "{name}: {result:?}");
        }
    }
    for kid in ["", "es256", "EdDSA ", "../keys", "EdDSA' OR '1'='1", "a\u{0}b", &"k".repeat(4_000)] {
        let header = with(header("EdDSA"), "kid", json!(kid));
        let result = judged(&issuers, &signed(&signer, "EdDSA", &header, &claims()));
        assert!(matches!(result, Err(Rejected::Key { again: false } | Rejected::Header(_))), "{kid}: {result:?}");
    }
    for broken in [without(header("EdDSA"), "kid"), with(header("EdDSA"), "kid", json!(1))] {
        assert!(matches!(judged(&issuers, &signed(&signer, "EdDSA", &broken, &claims())), Err(Rejected::Header(_))));
    }
    for typ in [json!("jwe"), json!("JWS"), json!(""), json!(1)] {
        let header = with(header("EdDSA"), "typ", typ);
        assert!(matches!(judged(&issuers, &signed(&signer, "EdDSA", &header, &claims())), Err(Rejected::Header(_))));
    }
}

#[test]
fn t_i5_claims_are_believed_only_as_they_are_configured() {
    let signer = Signer::new();
    let issuers = issuers(config(), &signer.set());
    let said = |claims: &Value| judged(&issuers, &signed(&signer, "EdDSA", &header("EdDSA"), claims));
    let other = [
        json!("https://login.example/"),
        json!("http://login.example"),
        json!(""),
        json!(["https://login.example"]),
        json!(null),
    ];
    for issuer in other {
        assert_eq!(said(&with(claims(), "iss", issuer.clone())), Err(Rejected::Issuer), "{issuer}");
    }
    assert_eq!(said(&without(claims(), "iss")), Err(Rejected::Issuer));
    for audience in [
        json!("Toolkeep"),
        json!(""),
        json!([]),
        json!(["other"]),
        json!(["toolkeep", 1]),
        json!({"a": "toolkeep"}),
        json!("*"),
    ] {
        assert!(matches!(said(&with(claims(), "aud", audience.clone())), Err(Rejected::Claim { .. })), "{audience}");
    }
    for name in ["aud", "exp", "org", "sub", "client"] {
        assert!(matches!(said(&without(claims(), name)), Err(Rejected::Claim { .. })), "{name}");
    }
    for wrong in [
        json!(1),
        json!(null),
        json!(""),
        json!("Alice"),
        json!("a b"),
        json!("a/b"),
        json!("a".repeat(65)),
        json!(["alice"]),
    ] {
        for name in ["org", "sub", "client"] {
            let result = said(&with(claims(), name, wrong.clone()));
            assert!(matches!(result, Err(Rejected::Claim { .. })), "{name} {wrong}: {result:?}");
        }
    }
    let foreign = said(&with(claims(), "org", json!("umbrella")));
    assert!(matches!(foreign, Err(Rejected::Claim { .. })), "a tenant that the issuer may not speak for");
}

#[test]
fn t_i5_times_are_whole_seconds_and_are_kept() {
    let signer = Signer::new();
    let issuers = issuers(config(), &signer.set());
    let said = |name: &str, value: Value| {
        judged(&issuers, &signed(&signer, "EdDSA", &header("EdDSA"), &with(claims(), name, value))).map(|_| ())
    };
    let leeway = 30;
    assert_eq!(said("exp", json!(NOW_S - leeway)), Err(Rejected::Expired));
    assert_eq!(said("exp", json!(NOW_S - leeway + 1)), Ok(()));
    assert_eq!(said("exp", json!(0)), Err(Rejected::Expired));
    for name in ["nbf", "iat"] {
        assert_eq!(said(name, json!(NOW_S + leeway)), Ok(()));
        assert_eq!(said(name, json!(NOW_S + leeway + 1)), Err(Rejected::Early));
        assert_eq!(said(name, json!(u64::MAX)), Err(Rejected::Early));
    }
    for name in ["exp", "nbf", "iat"] {
        for wrong in [
            json!("2030-01-01"),
            json!((NOW_S + 60).to_string()),
            json!(-1),
            json!(1.5),
            json!(null),
            json!([NOW_S]),
            json!(true),
        ] {
            let result = said(name, wrong.clone());
            assert!(matches!(result, Err(Rejected::Claim { .. })), "{name} {wrong}: {result:?}");
        }
    }
    let forever =
        judged(&issuers, &signed(&signer, "EdDSA", &header("EdDSA"), &with(claims(), "exp", json!(u64::MAX))));
    let expires_ms = forever.expect("believed").expires_ms;
    assert_eq!(expires_ms, (NOW_S + 86_400) * 1_000, "a connection asks for a fresh one after a day");
}

/// Every bit of the signature and every character of what is signed counts, and there is one spelling of a statement.
#[test]
fn t_i5_nothing_of_a_statement_can_be_changed() {
    let signer = Signer::new();
    let issuers = issuers(config(), &signer.set());
    for key in ["EdDSA", "ES256", "RS256"] {
        let message = unsigned(&header(key), &claims());
        let signature = signer.sign(key, message.as_bytes());
        for at in 0..signature.len() * 8 {
            let mut changed = signature.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let text = format!("{message}.{}", encoded(&changed));
            assert_eq!(judged(&issuers, &text), Err(Rejected::Signature), "{key}, bit {at}");
        }
        for length in [0, 1, signature.len() - 1] {
            let text = format!("{message}.{}", encoded(&signature[..length]));
            assert!(judged(&issuers, &text).is_err(), "{key}, {length} bytes");
        }
        let longer = format!("{message}.{}", encoded(&[&signature[..], &[0]].concat()));
        assert_eq!(judged(&issuers, &longer), Err(Rejected::Signature));
        for at in 0..message.len() {
            let mut bytes = message.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let text = format!("{}.{}", String::from_utf8(bytes).expect("text"), encoded(&signature));
            assert!(judged(&issuers, &text).is_err(), "{key}, character {at}");
        }
        let whole = format!("{message}.{}", encoded(&signature));
        let (first, rest) = whole.split_once('.').expect("parts");
        let padded = format!("{message}.{}", URL_SAFE.encode(&signature));
        let spellings = [
            format!("{whole}."),
            format!(".{whole}"),
            format!("{whole}.{}", encoded(&signature)),
            format!("{first}=.{rest}"),
            format!("{first}\n.{rest}"),
            padded.clone(),
            whole.replace('.', ".."),
            whole.replace('.', ""),
            first.to_owned(),
        ];
        for text in spellings.iter().filter(|text| **text != whole) {
            assert!(judged(&issuers, text).is_err(), "{text}");
        }
    }
}

#[test]
fn t_i9_a_statement_with_two_readings_is_refused() {
    let signer = Signer::new();
    let issuers = issuers(config(), &signer.set());
    let plain = claims().to_string();
    let texts = [
        plain.replacen('{', "{\"sub\":\"root\",", 1),
        plain.replacen('{', "{\"\\u0073ub\":\"root\",", 1),
        format!("\u{feff}{plain}"),
        format!("{plain}{plain}"),
        format!("[{plain}]"),
        "null".to_owned(),
        String::new(),
    ];
    for text in texts {
        let message = format!("{}.{}", encoded(header("EdDSA").to_string().as_bytes()), encoded(text.as_bytes()));
        let statement = format!("{message}.{}", encoded(&signer.sign("EdDSA", message.as_bytes())));
        assert!(matches!(judged(&issuers, &statement), Err(Rejected::Form(_))), "{text}");
    }
    let doubled = "{\"alg\":\"EdDSA\",\"kid\":\"EdDSA\",\"alg\":\"none\"}";
    let message = format!("{}.{}", encoded(doubled.as_bytes()), encoded(plain.as_bytes()));
    let statement = format!("{message}.{}", encoded(&signer.sign("EdDSA", message.as_bytes())));
    assert!(matches!(judged(&issuers, &statement), Err(Rejected::Form(_))));
    let padding = |extra: usize| with(claims(), "pad", json!("x".repeat(extra)));
    let length = |extra: usize| signed(&signer, "EdDSA", &header("EdDSA"), &padding(extra)).len();
    let mut extra = 0;
    while length(extra + 1) <= STATEMENT_MAX_BYTES {
        extra += 1.max((STATEMENT_MAX_BYTES - length(extra + 1)) / 2);
    }
    assert!(judged(&issuers, &signed(&signer, "EdDSA", &header("EdDSA"), &padding(extra))).is_ok());
    let longer = signed(&signer, "EdDSA", &header("EdDSA"), &padding(extra + 1));
    assert_eq!(judged(&issuers, &longer), Err(Rejected::Form("it is longer than 16 KiB")));
}

#[test]
fn t_i5_a_key_of_another_issuer_signs_nothing_here() {
    let (signer, other) = (Signer::new(), Signer::new());
    let mut second = config();
    (second.name, second.issuer) = ("other".to_owned(), "https://other.example".to_owned());
    let issuers = Issuers::new(vec![config(), second]);
    for (issuer, set) in issuers.0.iter().zip([signer.set(), other.set()]) {
        let keys = Keys::read(set.to_string().as_bytes(), &Algorithm::ALL).expect("keys");
        issuer.keys.store(Arc::new(keys));
    }
    let own = signed(&signer, "EdDSA", &header("EdDSA"), &claims());
    assert!(judged(&issuers, &own).is_ok());
    let lie = signed(&other, "EdDSA", &header("EdDSA"), &claims());
    assert_eq!(judged(&issuers, &lie), Err(Rejected::Signature));
}

#[test]
fn t_i5_only_the_configured_algorithms_have_keys() {
    let signer = Signer::new();
    for allowed in Algorithm::ALL {
        let issuers = issuers(IssuerConfig { algorithms: vec![allowed], ..config() }, &signer.set());
        for key in ["EdDSA", "ES256", "RS256"] {
            let result = judged(&issuers, &signed(&signer, key, &header(key), &claims()));
            assert_eq!(result.is_ok(), key == allowed.word(), "{key} of {allowed:?}: {result:?}");
        }
    }
}

#[test]
fn an_unknown_key_has_the_keys_read_again_but_not_at_once() {
    let signer = Signer::new();
    let issuers = issuers(config(), &json!({"keys": []}));
    let text = signed(&signer, "EdDSA", &header("EdDSA"), &claims());
    let at = |seconds: u64| issuers.judge(&text, (NOW_S + seconds) * 1_000).map(|_| ());
    assert_eq!((at(0), at(59)), (Err(Rejected::Key { again: false }), Err(Rejected::Key { again: false })));
    assert_eq!((at(60), at(60)), (Err(Rejected::Key { again: true }), Err(Rejected::Key { again: false })));
    assert_eq!((at(119), at(120)), (Err(Rejected::Key { again: false }), Err(Rejected::Key { again: true })));
    let refusal = Rejected::Key { again: true }.refusal();
    assert!(refusal.retryable && refusal.retry_after_ms.is_some());
}

/// Key sets that nobody should build on are refused whole; keys for something else are passed over.
#[test]
fn t_i5_a_key_set_has_public_keys_for_signatures_only() {
    let signer = Signer::new();
    let good = signer.set();
    let read = |set: &Value| Keys::read(set.to_string().as_bytes(), &Algorithm::ALL).map(|keys| keys.len());
    assert_eq!(read(&good), Ok(3));
    let changed = |at: usize, name: &str, value: Value| {
        let mut set = good.clone();
        set["keys"][at][name] = value;
        set
    };
    for at in 0..3 {
        for private in ["d", "p", "q", "k"] {
            assert!(read(&changed(at, private, json!("AAAA"))).is_err(), "{private}");
        }
        for (name, value) in [
            ("kty", json!("oct")),
            ("kty", json!(1)),
            ("kid", json!("")),
            ("kid", json!(7)),
            ("kid", json!("k".repeat(257))),
        ] {
            assert!(read(&changed(at, name, value.clone())).is_err(), "{at} {name} {value}");
        }
        let passed = [
            ("use", json!("enc")),
            ("key_ops", json!(["sign"])),
            ("alg", json!("ES512")),
            ("kty", json!("other")),
            ("alg", json!("HS256")),
        ];
        for (name, value) in passed {
            assert_eq!(read(&changed(at, name, value.clone())), Ok(2), "{at} {name} {value}");
        }
    }
    for (at, name) in [(0, "x"), (1, "x"), (1, "y"), (2, "n"), (2, "e")] {
        for wrong in [json!(""), json!("!"), json!("AAAA"), json!(1), json!(null)] {
            assert!(read(&changed(at, name, wrong.clone())).is_err(), "{at} {name} {wrong}");
        }
    }
    let short = encoded(&[&[0xff], &[1; 127][..]].concat());
    assert!(read(&changed(2, "n", json!(short))).is_err(), "1024 bits");
    assert!(read(&changed(1, "kid", json!("EdDSA"))).is_err(), "two keys of one id");
    let many = |count: usize| {
        let key = |at: usize| with(good["keys"][0].clone(), "kid", json!(format!("k{at}")));
        json!({"keys": (0..count).map(key).collect::<Vec<_>>()})
    };
    assert_eq!(read(&many(64)), Ok(64));
    assert!(read(&many(65)).is_err());
    let padded = |length: u64| {
        let text = good.to_string();
        let room = usize::try_from(length).expect("a size") - text.len();
        Keys::read(format!("{text}{}", " ".repeat(room)).as_bytes(), &Algorithm::ALL).map(|keys| keys.len())
    };
    assert_eq!(padded(KEY_SET_MAX_BYTES), Ok(3));
    assert!(padded(KEY_SET_MAX_BYTES + 1).is_err());
    for text in ["", "{}", "[]", "{\"keys\": 1}", "{\"keys\": [1]}", "{\"keys\": [], \"keys\": []}"] {
        assert!(Keys::read(text.as_bytes(), &Algorithm::ALL).is_err(), "{text}");
    }
}

#[test]
fn an_issuer_is_what_its_text_says_or_a_mistake() {
    let base = "name = \"corp\"\nissuer = \"https://l.example\"\naudience = \"t\"\n";
    let rest = "jwks_url = \"https://l.example/keys\"\ntenant = \"acme\"\nagent = \"a\"\n";
    let check = |text: &str| {
        let text = toml::from_str::<config::IssuerText>(text).map_err(|error| error.to_string())?;
        text.check(None).map_err(|error| error.to_string())
    };
    let good = check(&format!("{base}{rest}")).expect("valid");
    assert_eq!((good.leeway_ms, good.user_claim.as_str(), good.algorithms.len()), (30_000, "sub", 3));
    let local = check(&format!("{base}jwks_url = \"http://127.0.0.1:9/k\"\ntenant = \"acme\"\nagent = \"a\"\n"));
    let network = |config: IssuerConfig| matches!(config.keys, KeySource::Url { network: Network::Private, .. });
    assert!(network(local.expect("on this machine")));
    let wrong = [
        format!("{base}tenant = \"acme\"\nagent = \"a\"\n"),
        format!("{base}{rest}jwks_file = \"/k\"\n"),
        format!("{base}{rest}algorithms = []\n"),
        format!("{base}{rest}algorithms = [\"none\"]\n"),
        format!("{base}{rest}algorithms = [\"HS256\"]\n"),
        format!("{base}{rest}tenant_claim = \"org\"\n"),
        format!("{base}{rest}tenants = [\"acme\"]\n"),
        format!("{base}jwks_file = \"/k\"\ntenant_claim = \"org\"\nagent = \"a\"\n"),
        format!("{base}jwks_file = \"/k\"\ntenant = \"acme\"\n"),
        format!("{base}jwks_file = \"k\"\ntenant = \"acme\"\nagent = \"a\"\n"),
        format!("{base}jwks_url = \"http://l.example/keys\"\ntenant = \"acme\"\nagent = \"a\"\n"),
        format!("{base}jwks_url = \"https://*.example/keys\"\ntenant = \"acme\"\nagent = \"a\"\n"),
        format!("{base}jwks_url = \"file:///k\"\ntenant = \"acme\"\nagent = \"a\"\n"),
        format!("{base}{rest}leeway_s = 301\n"),
        format!("{base}{rest}refresh_min_s = 0\n"),
        format!("{base}{rest}unknown = 1\n"),
        format!("{}{rest}", base.replace("\"t\"", "\" \"")),
        format!("{}{rest}", base.replace("https://l.example", "")),
        format!("{}{rest}", base.replace("corp", "Corp Login")),
    ];
    for text in wrong {
        assert!(check(&text).is_err(), "{text}");
    }
    assert!(check(&format!("{base}{rest}leeway_s = 300\nrefresh_min_s = 1\n")).is_ok());
    let text = toml::from_str::<config::IssuerText>(&format!("{base}{rest}")).expect("a text");
    let twice = [text.clone(), config::IssuerText { name: "other".to_owned(), ..text }];
    assert!(config::check_all(&twice[..1], None).is_ok() && config::check_all(&twice, None).is_err());
    let many = |count: usize| -> Vec<config::IssuerText> {
        let named =
            |at: usize| config::IssuerText { name: format!("i{at}"), issuer: format!("i{at}"), ..twice[0].clone() };
        (0..count).map(named).collect()
    };
    assert!(config::check_all(&many(config::ISSUERS_MAX), None).is_ok());
    assert!(config::check_all(&many(config::ISSUERS_MAX + 1), None).is_err());
    let known = |count: usize| {
        let users = (0..count).map(|at| (format!("u{at}"), "alice".parse().expect("name"))).collect();
        config::IssuerText { users, ..twice[0].clone() }.check(None)
    };
    assert!(known(config::MAPPED_MAX).is_ok() && known(config::MAPPED_MAX + 1).is_err());
}

#[test]
fn users_are_who_the_configuration_says_where_it_says_so() {
    let signer = Signer::new();
    let users = BTreeMap::from([("auth0|7".to_owned(), "alice".parse().expect("name"))]);
    let issuers = issuers(IssuerConfig { users, ..config() }, &signer.set());
    let said = |sub: &str| {
        let text = signed(&signer, "EdDSA", &header("EdDSA"), &with(claims(), "sub", json!(sub)));
        judged(&issuers, &text).map(|stated| stated.principal.user.to_string())
    };
    assert_eq!(said("auth0|7"), Ok("alice".to_owned()));
    assert!(said("alice").is_err() && said("auth0|8").is_err());
}
