// A page that talks with an agent, as the guide shows it.
import { useFlueAgent } from "@flue/react";
import { useState } from "react";
import { createRoot } from "react-dom/client";

function Part({ part }) {
  if (part.type === "text") return <p className="text">{part.text}</p>;
  if (part.type === "dynamic-tool")
    return (
      <p className="tool" data-state={part.state}>
        {part.toolName}: {part.state === "output-available" ? String(part.output) : "…"}
      </p>
    );
  return null;
}

function Chat({ url }) {
  const { messages, status, historyReady, sendMessage } = useFlueAgent({ url });
  const [draft, setDraft] = useState("");
  return (
    <main data-status={status} data-ready={String(historyReady)}>
      {messages
        .filter((message) => message.display === "visible")
        .map((message) => (
          <section key={message.id} className={message.role}>
            {message.parts.map((part, index) => (
              <Part key={index} part={part} />
            ))}
          </section>
        ))}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          sendMessage(draft);
          setDraft("");
        }}
      >
        <input value={draft} onChange={(event) => setDraft(event.target.value)} />
        <button>Send</button>
      </form>
    </main>
  );
}

createRoot(document.getElementById("root")).render(<Chat url={document.body.dataset.url} />);
