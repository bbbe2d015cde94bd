"""A request of Gemini's generateContent is read."""

from ipr_engine import parse_request


def test_contents_parts_and_the_system_instruction_are_read():
    request = {
        "systemInstruction": "be brief",
        "contents": [
            {"role": "user", "parts": [{"text": "Why?"}]},
            {"role": "model", "parts": [{"text": "Because."}]},
            {"role": "user", "parts": [{"text": "Really?"}]},
        ],
    }
    parsed = parse_request(request)
    assert parsed.encoded == "Why?\n\nReally?"
    assert sorted(parsed.billed_only) == ["Because.", "be brief"]
