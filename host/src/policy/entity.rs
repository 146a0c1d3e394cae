//! Names of entities: who asks, what is asked for, about which tool.
//!
//! Ids join names with `/`, which no name contains: `Agent::"acme/alice/helper"` is in `User::"acme/alice"`, which is in
//! `Tenant::"acme"`. Actions are in their groups. Attributes are only on tools.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use toolkeep_core::principal::Principal;

use super::scope::Question;
use super::shape::ToolShape;
use super::vocabulary;

/// The types of entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A question about a tool, or a group of them.
    Action,
    /// An agent of a user.
    Agent,
    /// A run.
    Run,
    /// A tenant.
    Tenant,
    /// A tool.
    Tool,
    /// A user of a tenant.
    User,
}

struct Types {
    action: EntityTypeName,
    agent: EntityTypeName,
    run: EntityTypeName,
    tenant: EntityTypeName,
    tool: EntityTypeName,
    user: EntityTypeName,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| Types {
    action: literal("Action"),
    agent: literal("Agent"),
    run: literal("Run"),
    tenant: literal("Tenant"),
    tool: literal("Tool"),
    user: literal("User"),
});

#[expect(clippy::expect_used, reason = "each text is a literal of this file and an identifier of Cedar")]
fn literal(name: &'static str) -> EntityTypeName {
    name.parse().expect("BUG: the name of a type is no identifier")
}

/// The entity of this type and id.
#[must_use]
pub fn uid(kind: Kind, id: &str) -> EntityUid {
    let name = match kind {
        Kind::Action => &TYPES.action,
        Kind::Agent => &TYPES.agent,
        Kind::Run => &TYPES.run,
        Kind::Tenant => &TYPES.tenant,
        Kind::Tool => &TYPES.tool,
        Kind::User => &TYPES.user,
    };
    EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
}

/// The action that asks this question about a tool.
#[must_use]
pub fn action(question: Question, tool: &ToolShape) -> EntityUid {
    uid(Kind::Action, &vocabulary::action(question, &tool.name))
}

/// The agent of a principal.
#[must_use]
pub fn agent(principal: &Principal) -> EntityUid {
    uid(Kind::Agent, &format!("{}/{}/{}", principal.tenant, principal.user, principal.agent))
}

/// A principal with its user and tenant.
#[must_use]
pub fn principal(principal: &Principal) -> [Entity; 3] {
    let tenant = uid(Kind::Tenant, principal.tenant.as_str());
    let user = uid(Kind::User, &format!("{}/{}", principal.tenant, principal.user));
    [
        Entity::new_no_attrs(agent(principal), HashSet::from([user.clone()])),
        Entity::new_no_attrs(user, HashSet::from([tenant.clone()])),
        Entity::new_no_attrs(tenant, HashSet::new()),
    ]
}

/// A tool with its actions and their groups.
///
/// # Errors
/// Cedar refuses an attribute. It has no reason to: they are texts and a number.
pub fn tool(shape: &ToolShape) -> Result<Vec<Entity>, String> {
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let attributes = HashMap::from([
        ("name".to_owned(), text(shape.name.as_str())),
        ("version".to_owned(), text(&shape.version)),
        ("tier".to_owned(), RestrictedExpression::new_long(shape.tier.number().into())),
        ("component".to_owned(), text(&shape.component.to_string())),
    ]);
    let tool = Entity::new(uid(Kind::Tool, shape.name.as_str()), attributes, HashSet::new());
    let mut entities = vec![tool.map_err(|error| error.to_string())?];
    for question in Question::ALL {
        let group = uid(Kind::Action, question.word());
        entities.push(Entity::new_no_attrs(action(question, shape), HashSet::from([group.clone()])));
        entities.push(Entity::new_no_attrs(group, HashSet::new()));
    }
    Ok(entities)
}
