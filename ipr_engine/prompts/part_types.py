"""The types of turns and of their parts: what of each is text, which feature it needs, and whether its tokens can be counted.

The types are those of OpenAI chat completions, OpenAI Responses and Anthropic Messages, with what common servers add.
"""

from __future__ import annotations

# Parts that are one text: type -> its field.
TEXTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
    "redacted_thinking": "data",
    "summary_text": "text",
    "reasoning_text": "text",
    "tool_reference": "tool_name",
}
# Parts that only a candidate with this feature reads, and whose tokens cannot be counted here.
MEDIA = {
    **dict.fromkeys(("image_url", "image", "input_image", "computer_screenshot", "image_generation_call"), "vision"),
    **dict.fromkeys(("input_audio", "audio_url", "audio", "output_audio"), "audio"),
    **dict.fromkeys(("file", "input_file", "container_upload"), "files"),
    **dict.fromkeys(("video_url", "video", "input_video"), "video"),
}
# Parts that are texts in fields of their own, all billed.
REASONING = ("reasoning", "compaction")
ANTHROPIC_TOOLS = (
    "tool_use",
    "server_tool_use",
    "mcp_tool_use",
    "mcp_tool_result",
    "mcp_tool_listing",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "advisor_tool_result",
    "tool_addition",
    "tool_removal",
)
STRUCTURED_PARTS = (*REASONING, *ANTHROPIC_TOOLS, "fallback")
PARTS = (*TEXTS, *MEDIA, "document", "search_result", "tool_result", *STRUCTURED_PARTS)

# Fields that a model is shown as JSON, keys and all.
SHOWN_AS_JSON = frozenset(
    (
        "input",
        "arguments",
        "tools",
        "tool",
        "action",
        "actions",
        "operation",
        "parameters",
        "input_schema",
        "tool_changes",
    )
)
# Fields that are no text of the conversation: names of things, states, what a client keeps for itself.
NO_TEXT = frozenset(
    (
        "type",
        "id",
        "call_id",
        "tool_use_id",
        "status",
        "role",
        "cache_control",
        "caller",
        "index",
        "signature",
        "fingerprint",
        "container_id",
        "approval_request_id",
        "citations",
        "annotations",
        "logprobs",
        "transformations",
        "phase",
        "prompt_cache_breakpoint",
        "execution",
        "environment",
        "created_by",
        "acknowledged_safety_checks",
        "pending_safety_checks",
        "format",
        "file_id",
        "page_age",
        "error_code",
    )
)

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "model", "critic", "discriminator", "unknown")
CALLS = (
    "function_call",
    "custom_tool_call",
    "file_search_call",
    "computer_call",
    "web_search_call",
    "tool_search_call",
    "code_interpreter_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "additional_tools",
    "program",
)
OUTPUTS = (
    "function_call_output",
    "custom_tool_call_output",
    "computer_call_output",
    "tool_search_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
    "mcp_approval_response",
    "program_output",
)
WITHOUT_TEXT = ("compaction_trigger", "configuration_update")
ITEMS = ("message", *CALLS, *OUTPUTS, *REASONING, *WITHOUT_TEXT, "image_generation_call", "item_reference")
# The same reasoning under the names that servers give it: the first that is there is read.
REASONINGS = ("reasoning_details", "thinking_blocks", "reasoning_content", "reasoning")
