//! The request of a command: who sends it, under which idempotency key, to which route, and how long the client waits.
//! A handler adds the command: `request.submit(command).await`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRef, FromRequestParts, MatchedPath, RawPathParams},
    http::{HeaderMap, HeaderValue, Method, request::Parts},
    response::Response,
};
use contracts::{Command, Principal, Role, ids};
use uuid::Uuid;

use super::submit::{Commands, Submission};
use crate::{
    auth::{Auth, Caller, MaybeCaller},
    http::{
        ApiError, ApiResult,
        prefer::{WAIT_SECONDS_MAX, preferred_wait_seconds},
    },
};

const KEY_BYTES_MAX: usize = 255;

/// A command of a signed-in caller.
pub struct CommandRequest {
    /// The caller.
    pub caller: Caller,
    request: PublicCommandRequest,
}

/// A command of a signed-in caller or a visitor.
pub struct PublicCommandRequest {
    /// The caller; absent for a visitor.
    pub caller: Option<Caller>,
    commands: Commands,
    principal: Principal,
    scope: Option<String>,
    key: Option<Key>,
    wait: Option<Duration>,
}

/// An idempotency key, and the route that it was sent to.
struct Key {
    /// Method and path with their parameters: `POST /v1/payments/0199…/approve`. Part of the operation's id.
    route: String,
    /// `Idempotency-Key`: 1 to 255 visible ASCII characters.
    key: String,
}

impl CommandRequest {
    /// Admits these roles only.
    ///
    /// # Errors
    /// 403 for any other role.
    pub fn require(&self, roles: &[Role]) -> ApiResult<()> {
        self.caller.require(roles)
    }

    /// Submits the command: 202 with its operation once the broker has it, or 200 with the settled operation where the
    /// client prefers to wait and it is settled in time.
    ///
    /// # Errors
    /// 422 with every bad field, or where the key came before with another payload; 503 where the command is not known
    /// to be durable.
    pub async fn submit<C: Command>(self, command: C) -> ApiResult<Response> {
        self.request.submit(command).await
    }

    /// Submits several commands, each its own operation, named by a key unique in the request: all or, as far as the
    /// client knows, none. 202 with the operations in order, or 200 where the client prefers to wait and all are settled
    /// in time.
    ///
    /// # Errors
    /// As [`Self::submit`]; bad fields are named `items[n].…`.
    pub async fn submit_all<C: Command>(self, commands: impl Iterator<Item = (Uuid, C)>) -> ApiResult<Response> {
        self.request.submit_all(commands).await
    }
}

impl PublicCommandRequest {
    /// Keeps idempotency keys apart by this scope instead of the principal: strangers' weak keys must not collide.
    #[must_use]
    pub fn scoped(mut self, scope: String) -> Self {
        self.scope = Some(scope);
        self
    }

    /// As [`CommandRequest::submit`].
    ///
    /// # Errors
    /// As [`CommandRequest::submit`].
    pub async fn submit<C: Command>(self, command: C) -> ApiResult<Response> {
        let (id, is_keyed) = (self.operation_id(None), self.key.is_some());
        let (principal, wait) = (self.principal, self.wait);
        self.commands.submit(Submission { id, is_keyed, principal, wait, command }).await
    }

    async fn submit_all<C: Command>(self, commands: impl Iterator<Item = (Uuid, C)>) -> ApiResult<Response> {
        let commands = commands.map(|(item, command)| (self.operation_id(Some(item)), command)).collect();
        self.commands.submit_all(self.principal, self.wait, commands).await
    }

    /// The same for the same scope, route (with the item of a bulk request) and key; new without a key.
    fn operation_id(&self, item: Option<Uuid>) -> Uuid {
        let Some(Key { route, key }) = &self.key else { return ids::new_id() };
        let scope = self.scope.clone().unwrap_or_else(|| self.principal.to_string());
        match item {
            None => ids::keyed_id(&scope, route, key),
            Some(item) => ids::keyed_id(&scope, &format!("{route}/{item}"), key),
        }
    }
}

impl<S> FromRequestParts<S> for CommandRequest
where
    S: Send + Sync,
    Arc<Auth>: FromRef<S>,
    Commands: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let request = PublicCommandRequest::read(parts, state, Some(caller)).await?;
        Ok(Self { caller, request })
    }
}

impl<S> FromRequestParts<S> for PublicCommandRequest
where
    S: Send + Sync,
    Arc<Auth>: FromRef<S>,
    Commands: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let MaybeCaller(caller) = MaybeCaller::from_request_parts(parts, state).await?;
        Self::read(parts, state, caller).await
    }
}

impl PublicCommandRequest {
    async fn read<S>(parts: &mut Parts, state: &S, caller: Option<Caller>) -> ApiResult<Self>
    where
        S: Send + Sync,
        Commands: FromRef<S>,
    {
        let key = match parts.headers.get("idempotency-key") {
            Some(value) => Some(Key { key: idempotency_key(value)?, route: route(parts, state).await }),
            None => None,
        };
        Ok(Self {
            caller,
            commands: Commands::from_ref(state),
            principal: MaybeCaller(caller).principal(),
            scope: None,
            key,
            wait: preferred_wait(&parts.headers),
        })
    }
}

fn idempotency_key(value: &HeaderValue) -> ApiResult<String> {
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
    key.map(str::to_owned).ok_or_else(|| {
        ApiError::invalid_request(format!("`Idempotency-Key` must be 1 to {KEY_BYTES_MAX} visible ASCII characters."))
    })
}

fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = preferred_wait_seconds(headers).filter(|seconds| *seconds > 0);
    seconds.map(|seconds| Duration::from_secs(seconds.min(WAIT_SECONDS_MAX)))
}

/// Method and path as the router matched them. Ids are written in their canonical form, however the client wrote them.
async fn route<S: Send + Sync>(parts: &mut Parts, state: &S) -> String {
    let template = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let parameters = RawPathParams::from_request_parts(parts, state).await;
    let parameters = parameters.iter().flat_map(|parameters| parameters.iter());
    fill(&parts.method, &template, parameters)
}

fn fill<'a>(method: &Method, template: &str, parameters: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    parameters.fold(format!("{method} {template}"), |route, (name, value)| {
        let value = value.parse::<Uuid>().map_or_else(|_| value.to_owned(), |id| id.to_string());
        route.replace(&format!("{{{name}}}"), &value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_its_ids_in_canonical_form() {
        let fill = |template, parameters: &[(&str, &str)]| fill(&Method::POST, template, parameters.iter().copied());
        assert_eq!(fill("/v1/payments", &[]), "POST /v1/payments");
        for written in
            ["01990000-0000-7000-8000-00000000000A", "019900000000700080000000 0000000a".replace(' ', "").as_str()]
        {
            let route = fill("/v1/payments/{id}/approve", &[("id", written)]);
            assert_eq!(route, "POST /v1/payments/01990000-0000-7000-8000-00000000000a/approve");
        }
        let two = fill("/v1/batches/{id}/attendance/{date}", &[("id", "x"), ("date", "2026-01-31")]);
        assert_eq!(two, "POST /v1/batches/x/attendance/2026-01-31");
    }
}
