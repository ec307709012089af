//! Functions in Rust.

use bowline_agent::{
    Effect, ToolError,
    binding::{Binding as _, Functions},
};
use serde_json::json;

use super::{call, context};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Add {
    a: i64,
    #[serde(default)]
    b: i64,
}

#[tokio::test]
async fn a_function_gets_what_its_type_says_or_is_not_called() {
    let math = Functions::new("math", "Sums.")
        .function("add", "Adds.", |input: Add| async move {
            if input.b < 0 {
                return Err(ToolError::new("b is negative"));
            }
            Ok(input.a + input.b)
        })
        .unwrap()
        .effect(Effect::None)
        .function_with(
            "key",
            "The key of the call.",
            |context, _: std::collections::BTreeMap<String, String>| async move {
                Ok(context.effect_id)
            },
        )
        .unwrap()
        .approval();
    let call = |method, input| {
        let (math, context) = (&math, context(None));
        async move {
            call(math, &context, method, input)
                .await
                .map(|value| value.to_json())
        }
    };
    assert_eq!(call("add", json!({"a": 2, "b": 3})).await, Ok(json!(5)));
    assert_eq!(
        call("add", json!({"a": 2, "b": -1}))
            .await
            .unwrap_err()
            .to_string(),
        "Error: b is negative"
    );
    let thrown = call("add", json!({"a": "two"})).await.unwrap_err();
    assert_eq!(thrown.name, "TypeError");
    assert!(thrown.message.contains("math.add"), "{thrown}");
    assert_eq!(call("key", json!([])).await, Ok(json!("eff_1")));
    let methods = math.methods();
    assert_eq!(
        (methods[0].effect, methods[0].approval, methods[1].approval),
        (Effect::None, false, true)
    );
    assert!(!methods[0].parameters[0].optional && methods[1].parameters[0].optional);
}
