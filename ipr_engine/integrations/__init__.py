"""The seats of an engine in gateways of others; each module is named as the gateway it is for (docs/litellm.md)."""
