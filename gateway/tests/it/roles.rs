//! Every route of the OpenAPI document, asked by everybody: nobody makes it fail, whoever must sign in is told so, and a
//! role gets no further than it may.

use contracts::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::fixtures;
use uuid::Uuid;

use crate::served::{Served, answer};

const ROLES: [Role; 4] = [Role::Student, Role::Teacher, Role::Accountant, Role::Admin];

struct Route {
    method: Method,
    path: String,
    /// Nobody is served here without a token.
    needs_token: bool,
    /// The roles that the document names, where it names any.
    roles: Vec<Role>,
    /// A body that it takes.
    body: Value,
}

/// As the gateway itself describes them.
async fn routes(served: &Served) -> Vec<Route> {
    let (_, document) = answer(served.get("/openapi.json")).await;
    let paths = document["paths"].as_object().expect("an OpenAPI document has paths");
    let routes = paths.iter().flat_map(|(path, item)| {
        item.as_object().expect("an object").iter().filter_map(|(method, operation)| {
            let method: Method = method.to_uppercase().parse().ok()?;
            let security = operation["security"].as_array()?;
            let needs_token = !security.is_empty() && security.iter().all(|one| one.get("bearer").is_some());
            let named = security.iter().filter_map(|one| one["bearer"].as_array()).flatten();
            let roles = named.filter_map(|role| role.as_str()?.parse().ok()).collect();
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let body = if schema.is_null() { json!({}) } else { sample(&document, schema) };
            Some(Route { method, path: path.clone(), needs_token, roles, body })
        })
    });
    routes.collect()
}

/// A value of this schema of the document: its example, or the least that it takes.
fn sample(document: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return sample(document, document.pointer(reference.trim_start_matches('#')).expect("the schema is there"));
    }
    if !schema["example"].is_null() {
        return schema["example"].clone();
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        let choices = schema[choice].as_array().into_iter().flatten();
        if let Some(first) = choices.clone().find(|one| one["type"] != "null") {
            return sample(document, first);
        }
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    if types.contains(&json!("object")) {
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        return required.map(|name| (name.to_owned(), sample(document, &schema["properties"][name]))).collect();
    }
    if types.contains(&json!("array")) {
        return json!([sample(document, &schema["items"])]);
    }
    match (&schema["enum"][0], schema["format"].as_str()) {
        (Value::Null, Some("uuid")) => json!(Uuid::now_v7()),
        (Value::Null, _) if types.contains(&json!("boolean")) => json!(true),
        (Value::Null, _) if types.contains(&json!("integer")) => json!(1),
        (Value::Null, _) => json!("some text"),
        (known, _) => known.clone(),
    }
}

async fn ask(served: &Served, route: &Route, token: Option<&str>) -> (StatusCode, Value) {
    let id = Uuid::now_v7().to_string();
    let path = route.path.replace("{id}", &id).replace("{slug}", "batch-full");
    let url = format!("http://{}{path}", served.gateway.address());
    let mut request = served.http.request(route.method.clone(), url);
    if route.method != Method::GET && route.method != Method::DELETE {
        request = request.json(&route.body);
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
        if route.path == "/v1/events" {
            // Its body never ends.
            return (request.send().await.expect("the gateway answers").status(), Value::Null);
        }
    }
    answer(request).await
}

/// Whether the caller is refused for want of a token. A route that reads a one-time token refuses that with 401, too.
fn asks_for_token(answer: &Value) -> bool {
    answer["type"] == "/problems/unauthenticated"
}

#[tokio::test]
async fn every_route_keeps_every_role_where_it_belongs() {
    let served = Served::start("roles").await;
    let mut users = Vec::new();
    for role in ROLES {
        let email = served.sandbox.email(role.name());
        users.push(fixtures::user(&served.sandbox.db, &email, role).await);
    }
    let routes = routes(&served).await;
    assert!(routes.len() >= 35, "only {} routes were found", routes.len());
    let mut limited = 0;
    for route in &routes {
        let what = format!("{} {}", route.method, route.path);
        let (status, said) = ask(&served, route, None).await;
        assert!(status.as_u16() < 500, "{what} without a token: {said}");
        assert_eq!(asks_for_token(&said), route.needs_token, "{what} without a token: {status} {said}");
        for user in &users {
            // A token each: signing out must not sign the next question out.
            let (status, said) = ask(&served, route, Some(&served.token(user))).await;
            let what = format!("{what} as {}", user.role.name());
            assert!(status.as_u16() < 500 && !asks_for_token(&said), "{what}: {status} {said}");
            // As the document says: a role that it names gets further than one that it does not.
            if !route.roles.is_empty() {
                let is_refused = status == StatusCode::FORBIDDEN;
                assert_eq!(is_refused, !route.roles.contains(&user.role), "{what}: {status} {said}");
                limited += 1;
            }
        }
    }
    assert!(limited >= 8 * ROLES.len(), "only {limited} limits were found in the document");
    served.gateway.stop().await;
    served.sandbox.close_undrained().await;
}
