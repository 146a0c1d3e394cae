//! What the environment says about traces, in the variables that every OpenTelemetry SDK reads.
//!
//! A variable for traces comes before the one for everything. A number that is none is warned of and ignored, as the
//! specification wants it; what this daemon cannot do (another protocol, another exporter) refuses the start, because an
//! operator who sends traces nowhere would not notice.

use std::fmt;
use std::time::Duration;

use toolkeep_core::net::origin::Origin;
use toolkeep_core::net::target::Target;

use super::super::{About, BadSetting, Context, ENDPOINTS};
use super::{Fields, field};
use crate::ambient::Ambient;

/// Fields of a request that the environment may set.
const FIELDS_MAX: usize = 32;
/// Attributes of the resource that the environment may set.
const ATTRIBUTES_MAX: usize = 64;
/// Longest value of an attribute, in bytes; a longer one is left out.
pub(in crate::trace) const ATTRIBUTE_MAX_BYTES: usize = 1_024;
/// Largest queue and batch, in calls and spans.
const QUEUE_MAX: u64 = 100_000;
/// Longest time that can be set, in milliseconds.
const TIME_MAX_MS: u64 = 600_000;
/// Path of the traces of an endpoint for everything.
const TRACES_PATH: &str = "/v1/traces";
/// The last bits of a trace id, which decide about its share: those that are random in W3C Trace Context level 2. The byte
/// before them is not random in an id of this daemon, which is a UUID.
const SHARE_BITS: u32 = 56;

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    origin: Origin,
    target: Target,
}

impl Endpoint {
    pub(super) fn parts(&self) -> (Origin, Target) {
        (self.origin.clone(), self.target.clone())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.target.as_str())
    }
}

/// What is sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    /// Whether a caller's decision counts.
    parent: bool,
    /// Of the rest, every trace id whose last bits are not below this: the threshold of OpenTelemetry's consistent
    /// probability sampling.
    from: u64,
}

impl Sampler {
    const ALWAYS: Self = Self { parent: false, from: 0 };
    const NEVER: Self = Self { parent: false, from: 1 << SHARE_BITS };

    /// Whether a call of this context is recorded. The same for every system that looks at the same trace.
    pub(super) fn samples(self, context: &Context) -> bool {
        if let Some(parent) = context.parent.filter(|_| self.parent) {
            return parent.sampled;
        }
        let [.., a, b, c, d, e, f, g] = *context.trace.bytes();
        u64::from_be_bytes([0, a, b, c, d, e, f, g]) >= self.from
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^56")]
    #[expect(clippy::cast_precision_loss, reason = "a share is not more exact than its text")]
    fn share(ratio: f64) -> Self {
        Self { parent: false, from: ((1.0 - ratio) * (1_u64 << SHARE_BITS) as f64) as u64 }
    }
}

/// Everything that the environment says.
#[derive(Debug, Clone)]
pub(in crate::trace) struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) headers: Fields,
    /// Of one request.
    pub(super) timeout: Duration,
    pub(super) sampler: Sampler,
    /// Attributes of the resource.
    pub(super) resource: Vec<(String, String)>,
    /// How long a call waits for others.
    pub(super) delay: Duration,
    /// Calls that wait, at most.
    pub(super) queue: usize,
    /// Spans of one request, at most; those of one call stay together.
    pub(super) batch: usize,
    /// Of one batch, all attempts together.
    pub(super) export_timeout: Duration,
}

fn bad(variable: &'static str, problem: impl Into<String>) -> BadSetting {
    BadSetting { variable, problem: problem.into() }
}

impl Settings {
    /// Read them; nothing where nothing is to be exported.
    ///
    /// # Errors
    /// A variable asks for what there is not.
    pub(in crate::trace) fn read(ambient: &Ambient, about: &About<'_>) -> Result<Option<Self>, BadSetting> {
        let var = |name: &str| ambient.var(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        if var("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match var("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => {
                return Err(bad("OTEL_TRACES_EXPORTER", format!("there is no exporter `{other}`; use otlp or none")));
            }
        }
        let Some(endpoint) = endpoint(&var)? else { return Ok(None) };
        protocol(&var)?;
        let number = |name: &'static str, default: u64, most: u64| number(&var, name, default, most);
        let time = |name, default| Duration::from_millis(number(name, default, TIME_MAX_MS));
        let timeout = match var("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") {
            Some(_) => time("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 10_000),
            None => time("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000),
        };
        let size = |name, default| usize::try_from(number(name, default, QUEUE_MAX)).unwrap_or(usize::MAX);
        let queue = size("OTEL_BSP_MAX_QUEUE_SIZE", 2_048);
        Ok(Some(Self {
            endpoint,
            headers: headers(&var)?,
            timeout,
            sampler: sampler(&var)?,
            resource: resource(&var, about),
            delay: time("OTEL_BSP_SCHEDULE_DELAY", 5_000),
            queue,
            batch: size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
            export_timeout: time("OTEL_BSP_EXPORT_TIMEOUT", 30_000),
        }))
    }
}

fn endpoint(var: &impl Fn(&str) -> Option<String>) -> Result<Option<Endpoint>, BadSetting> {
    let [all, traces] = ENDPOINTS;
    let (variable, url) = match (var(traces), var(all)) {
        (Some(url), _) => (traces, url),
        (None, Some(base)) => (all, format!("{}{TRACES_PATH}", base.trim_end_matches('/'))),
        (None, None) => return Ok(None),
    };
    let split = Origin::split_url(&url);
    let (origin, target) = split.map_err(|error| {
        bad(variable, format!("is not the URL of a collector ({error}); write `http://127.0.0.1:4318`"))
    })?;
    Ok(Some(Endpoint { origin, target }))
}

fn protocol(var: &impl Fn(&str) -> Option<String>) -> Result<(), BadSetting> {
    for variable in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        match var(variable).as_deref() {
            None => {}
            Some("http/protobuf") => return Ok(()),
            Some(other) => {
                let problem =
                    format!("`{other}` is not spoken here; set it to http/protobuf, port 4318 of a collector");
                return Err(bad(variable, problem));
            }
        }
    }
    Ok(())
}

fn headers(var: &impl Fn(&str) -> Option<String>) -> Result<Fields, BadSetting> {
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
    const ALL: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let (variable, text) = match (var(TRACES), var(ALL)) {
        (Some(text), _) => (TRACES, text),
        (None, Some(text)) => (ALL, text),
        (None, None) => return Ok(Fields::new()),
    };
    let mut fields = Fields::new();
    for (name, value) in pairs(&text) {
        // The value may be a credential, and is not told.
        let parsed = value.and_then(|value| field(&name.to_ascii_lowercase(), &value));
        let Some((name, value)) = parsed.filter(|_| fields.len() < FIELDS_MAX) else {
            let problem =
                format!("`{}` cannot be set; write `name=value,name=value`, {FIELDS_MAX} at most", name.escape_debug());
            return Err(bad(variable, problem));
        };
        fields.insert(name, value);
    }
    Ok(fields)
}

/// `key=value` pairs as W3C Baggage writes them: values are percent-encoded.
fn pairs(text: &str) -> impl Iterator<Item = (String, Option<String>)> {
    text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((key, value)) => (key.trim().to_owned(), decoded(value.trim())),
        None => (pair.to_owned(), None),
    })
}

/// A percent-encoded text (RFC 3986, section 2.1).
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit()? << 4 | digit()?);
    }
    String::from_utf8(bytes).ok()
}

fn sampler(var: &impl Fn(&str) -> Option<String>) -> Result<Sampler, BadSetting> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    let share = || match var("OTEL_TRACES_SAMPLER_ARG").map(|text| (text.parse::<f64>(), text)) {
        None => Sampler::ALWAYS,
        Some((Ok(ratio), _)) if (0.0..=1.0).contains(&ratio) => Sampler::share(ratio),
        Some((_, text)) => {
            tracing::warn!(
                value = text,
                "`OTEL_TRACES_SAMPLER_ARG` is not a share between 0 and 1; everything is sampled"
            );
            Sampler::ALWAYS
        }
    };
    let by_parent = |root: Sampler| Sampler { parent: true, ..root };
    Ok(match var(NAME).as_deref() {
        None | Some("parentbased_always_on") => by_parent(Sampler::ALWAYS),
        Some("parentbased_always_off") => by_parent(Sampler::NEVER),
        Some("parentbased_traceidratio") => by_parent(share()),
        Some("always_on") => Sampler::ALWAYS,
        Some("always_off") => Sampler::NEVER,
        Some("traceidratio") => share(),
        Some(other) => {
            let problem = format!(
                "there is no sampler `{other}`; use always_on, always_off, traceidratio or one of them as parentbased_…"
            );
            return Err(bad(NAME, problem));
        }
    })
}

fn resource(var: &impl Fn(&str) -> Option<String>, about: &About<'_>) -> Vec<(String, String)> {
    let mut attributes: Vec<(String, String)> = [
        ("service.name", "toolkeep"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", about.host_id),
        ("deployment.environment.name", about.environment),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let mut set = |name: String, value: String| {
        attributes.retain(|(known, _)| *known != name);
        if attributes.len() < ATTRIBUTES_MAX {
            attributes.push((name, value));
        } else {
            tracing::warn!(name, "`OTEL_RESOURCE_ATTRIBUTES` has too many members; this one is left out");
        }
    };
    for (name, value) in pairs(&var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()) {
        match value.filter(|value| value.len() <= ATTRIBUTE_MAX_BYTES && name.len() <= ATTRIBUTE_MAX_BYTES) {
            Some(value) => set(name, value),
            None => tracing::warn!("`OTEL_RESOURCE_ATTRIBUTES` has a member that is none; it is left out"),
        }
    }
    if let Some(name) = var("OTEL_SERVICE_NAME").filter(|name| name.len() <= ATTRIBUTE_MAX_BYTES) {
        set("service.name".to_owned(), name);
    }
    attributes
}

fn number(var: &impl Fn(&str) -> Option<String>, name: &'static str, default: u64, most: u64) -> u64 {
    match var(name).map(|text| (text.parse::<u64>(), text)) {
        None => default,
        Some((Ok(number), _)) if (1..=most).contains(&number) => number,
        Some((_, text)) => {
            tracing::warn!(
                variable = name,
                value = text,
                default,
                "is not a number between 1 and {most}; it is ignored"
            );
            default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use toolkeep_core::id::CallId;
    use uuid::Uuid;

    fn read(vars: &[(&str, &str)]) -> Result<Option<Settings>, BadSetting> {
        let vars: BTreeMap<String, String> = vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let about = About { host_id: "host", environment: "dev" };
        Settings::read(&Ambient::fixed(0, 0, vars), &about)
    }

    fn set(vars: &[(&str, &str)]) -> Settings {
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
        all.extend(vars);
        read(&all).expect("settings").expect("an endpoint")
    }

    #[test]
    fn r39_nothing_is_exported_unless_a_collector_is_named() {
        let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        assert!(read(&[]).expect("fine").is_none());
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).expect("empty is unset").is_none());
        assert!(read(&[named, ("OTEL_SDK_DISABLED", "TRUE")]).expect("fine").is_none());
        assert!(read(&[named, ("OTEL_TRACES_EXPORTER", "none")]).expect("fine").is_none());
        assert!(read(&[named, ("OTEL_SDK_DISABLED", "yes")]).expect("fine").is_some(), "only `true` disables");
    }

    #[test]
    fn r39_the_variable_of_traces_comes_before_that_of_everything() {
        assert_eq!(set(&[]).endpoint.to_string(), "http://127.0.0.1:4318/v1/traces");
        let own = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://otel.example.com/in?x=1")];
        assert_eq!(set(&own).endpoint.to_string(), "https://otel.example.com/in?x=1");
        let times = [("OTEL_EXPORTER_OTLP_TIMEOUT", "7"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "8")];
        assert_eq!(set(&times).timeout, Duration::from_millis(8));
        assert_eq!(set(&times[..1]).timeout, Duration::from_millis(7));
        let fields = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Authorization=Bearer%20x, b=2"),
        ];
        let headers = set(&fields).headers;
        assert_eq!(
            (headers.len(), &headers["authorization"], &headers["b"]),
            (2, &"Bearer x".parse().expect("v"), &"2".parse().expect("v"))
        );
        assert!(!format!("{headers:?}").contains("Bearer"), "it may be a credential");
    }

    #[test]
    fn what_there_is_not_refuses_the_start_and_says_no_value() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "jaeger"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "host=evil"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%zz"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=x%0d%0ay"),
        ] {
            let refused = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"), (name, value)]);
            assert_eq!(refused.expect_err(value).variable, name);
        }
        let fields = |n: usize| (0..n).map(|k| format!("h{k}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(set(&[("OTEL_EXPORTER_OTLP_HEADERS", &fields(FIELDS_MAX))]).headers.len(), FIELDS_MAX);
        let more = fields(FIELDS_MAX + 1);
        let many = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a.example"), ("OTEL_EXPORTER_OTLP_HEADERS", more.as_str())];
        assert!(read(&many).is_err());
    }

    #[test]
    fn numbers_are_taken_at_their_bounds_and_defaults_otherwise() {
        let queue = |text: &str| set(&[("OTEL_BSP_MAX_QUEUE_SIZE", text)]).queue;
        assert_eq!(
            (queue("1"), queue("0"), queue("100000"), queue("100001"), queue("x")),
            (1, 2_048, 100_000, 2_048, 2_048)
        );
        assert_eq!(set(&[("OTEL_BSP_MAX_QUEUE_SIZE", "9")]).batch, 9, "a batch is not larger than the queue");
        assert_eq!(set(&[("OTEL_BSP_SCHEDULE_DELAY", "600001")]).delay, Duration::from_secs(5));
    }

    #[test]
    fn the_resource_says_who_this_is_unless_the_environment_does() {
        let of = |vars: &[(&str, &str)], name: &str| {
            set(vars).resource.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
        };
        assert_eq!(of(&[], "service.name").as_deref(), Some("toolkeep"));
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=x%2Cy,bad");
        assert_eq!(of(&[attributes], "service.name").as_deref(), Some("a"));
        assert_eq!(of(&[attributes], "team").as_deref(), Some("x,y"));
        assert_eq!(of(&[attributes, ("OTEL_SERVICE_NAME", "b")], "service.name").as_deref(), Some("b"));
    }

    #[test]
    fn a_share_of_traces_is_sampled_by_their_ids_and_a_caller_is_believed_where_that_is_wanted() {
        let context = |low: u64, parent: Option<bool>| {
            let call = CallId::new(Uuid::from_u128(u128::from(low) | 1 << 100));
            let flags = parent.map(|sampled| {
                let trace = Context::of(None, None, call).trace;
                serde_json::json!({"traceparent": format!("00-{trace}-00f067aa0ba902b7-0{}", u8::from(sampled))})
            });
            Context::of(flags.as_ref(), None, call)
        };
        let sampler =
            |name: &str, share: &str| set(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", share)]).sampler;
        let half = sampler("traceidratio", "0.5");
        assert!(half.samples(&context(1 << 55, None)) && !half.samples(&context((1 << 55) - 1, None)));
        assert!(!half.samples(&context(0xff << 56, Some(true))), "it does not ask the caller");
        for (name, share, none, some) in [
            ("always_on", "", true, true),
            ("always_off", "", false, false),
            ("traceidratio", "0", false, false),
            ("traceidratio", "1", true, true),
            ("traceidratio", "1.1", true, true),
            ("parentbased_always_off", "", false, false),
            ("parentbased_traceidratio", "1.0", true, true),
        ] {
            let sampler = sampler(name, share);
            assert_eq!(sampler.samples(&context(7, None)), none, "{name} {share}");
            assert_eq!(sampler.samples(&context(u64::MAX, None)), some, "{name} {share}");
        }
        let by_parent = set(&[]).sampler;
        assert!(by_parent.samples(&context(7, None)) && by_parent.samples(&context(7, Some(true))));
        assert!(!by_parent.samples(&context(7, Some(false))));
    }

    #[test]
    fn r39_of_the_traces_that_begin_here_the_share_is_sampled_that_is_wanted() {
        const TRACES: usize = 2_000;
        let ambient = Ambient::fixed(1_700_000_000_000, 7, BTreeMap::new());
        for share in [0.1, 0.25, 0.5, 0.75, 0.9] {
            let sampler = Sampler::share(share);
            let own = || Context::of(None, None, CallId::new(ambient.uuid_v7()));
            let sampled = (0..TRACES).filter(|_| sampler.samples(&own())).count();
            let wanted = share * 2_000.0;
            // Five deviations of a fair draw, which is the same at every run.
            let off = 5.0 * (wanted * (1.0 - share)).sqrt();
            let sampled_of = f64::from(u32::try_from(sampled).expect("few"));
            assert!((sampled_of - wanted).abs() < off, "{sampled} for {share}");
        }
    }
}
