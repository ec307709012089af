// A tool is one typed function. Its schema comes from the types, its descriptions from the comments.

// A person is asked before each call. After a crash it goes on where it stood, and opens nothing twice.
export const tool = { durable: true, approval: "required", effect: "retry", timeout: "30s" };

/** How bad it is for those who are hit. */
type Severity = "low" | "medium" | "high";

interface Issue {
  /**
   * What goes wrong, in one line.
   * @minLength 8
   * @maxLength 120
   */
  title: string;
  /** The report, in Markdown. */
  body: string;
  severity: Severity;
  /**
   * @maxItems 5
   * @uniqueItems
   */
  labels?: string[];
}

/**
 * Open an issue in the tracker, for the people who own the code.
 * @returns where it is
 */
export default async function openIssue(input: Issue): Promise<string> {
  const labels = ["triage", ...(input.labels ?? [])];
  // A binding: the tracker's key never enters this code.
  const issue = await step.do("open", () => tracker.createIssue({ body: { ...input, labels } }));
  return issue.url;
}
