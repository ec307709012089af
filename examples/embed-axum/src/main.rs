//! Agents in an `axum` application: its own pages, its own way to let people in, its own listener.
//!
//!     TOKEN=… MODEL=anthropic/claude-sonnet-4-6 cargo run -p bowline-embed-axum
//!     curl 127.0.0.1:3000/agents/greeter/mia -H "authorization: Bearer $TOKEN" \
//!         -H 'content-type: application/json' -d '{"kind":"user","body":"Hello!"}'
#![allow(clippy::print_stdout)]

use std::{env, error::Error, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::header::AUTHORIZATION,
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::get,
};
use bowline::{
    Agent, Bowline, Render,
    server::{Access, Scope, Settings},
};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

/// Whoever shows the token may talk to the greeter. A real application looks at its session here.
async fn let_in(State(token): State<Arc<str>>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION);
    let shown = header.and_then(|it| it.as_bytes().strip_prefix(b"Bearer "));
    if shown.is_some_and(|shown| shown.ct_eq(token.as_bytes()).into()) {
        let scopes = [Scope::Read, Scope::Send];
        let access = Access::to_agents("visitor", ["greeter".to_owned()], scopes);
        request.extensions_mut().insert(access);
    }
    next.run(request).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let data = env::args().nth(1).unwrap_or("embed-axum-data".to_owned());
    let (token, model) = (env::var("TOKEN")?, env::var("MODEL")?);
    let addr = env::var("ADDR").unwrap_or("127.0.0.1:3000".to_owned());
    let greeter = Agent::new("greeter", move |cx: &mut Render| {
        cx.model(model.as_str());
        "Greet whoever writes, in one line."
    })?;
    let (agents, app) = Bowline::open(data)?
        .agent(greeter)
        .router(Settings::default());

    let routes = Router::new()
        .route("/", get(|| async { "This page is the application's own." }))
        .merge(agents.route_layer(from_fn_with_state(Arc::from(token), let_in)));
    let listener = TcpListener::bind(addr).await?;
    println!("http://{}", listener.local_addr()?);
    let ending = app.draining().clone();
    let ended = async move {
        let _ = tokio::signal::ctrl_c().await;
        // Readers that follow a conversation would hold the listener otherwise.
        ending.cancel();
    };
    axum::serve(listener, routes)
        .with_graceful_shutdown(ended)
        .await?;
    app.stop(Duration::from_secs(10)).await;
    Ok(())
}
