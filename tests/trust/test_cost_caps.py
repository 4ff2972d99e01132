"""What a call and a day may cost, and what happens then (trust.md LLM10; product: never silence)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.api.test_calls import assert_is_a_tip
from tests.fakes.openai import FakeOpenAI
from tests.serving import Client, connected, serving
from tests.trust.calling import PRICE, next_tip

MODELS = {
    "OPENAI_MODEL": "gpt-6-sol",
    "OPENAI_MODEL_CHEAP": "gpt-6-luna",
    "OPENAI_API_KEY": "sk-test",
    "OPENAI_MODEL_ANALYSIS": "gpt-6-astra",
}


async def tips_of_a_call(client: Client, count: int) -> list[dict[str, Any]]:
    """Ask for `count` tips, one after the other."""
    call_id = (await client.start())["conversationId"]
    before = len(client.told("AI_TIP"))
    for number in range(1, count + 1):
        await client.say(call_id, "caller", f"{PRICE} {number}")
        wish = next_tip(call_id, selectedRecommendationId=str(number))
        assert (await client.ask("REQUEST_NEXT_TIP", wish))["ok"]
        assert_is_a_tip(await client.wait_for("AI_TIP", before + number))
    await client.ask("END_CONVERSATION", {"conversationId": call_id})
    await client.wait_for("CONVERSATION_ENDED")
    return client.told("AI_TIP")[before:]


async def test_at_the_cap_of_a_call_the_cheaper_model_speaks_then_the_offline_coach(tmp_path: Path) -> None:
    async with FakeOpenAI() as fake:
        model = {**MODELS, "OPENAI_BASE_URL": fake.base_url, "COST_CAP_USD_PER_DAY": 0}
        async with serving(tmp_path / "a", COST_CAP_USD_PER_CALL=0, **model) as server:
            async with connected(server) as client:
                await tips_of_a_call(client, 1)
                cost = client.told("CONVERSATION_ENDED")[0]["usage"]["costMicroUsd"]
        fake.requests.clear()
        cap = cost * 1.5 / 1_000_000
        async with serving(tmp_path / "b", COST_CAP_USD_PER_CALL=cap, **model) as server:
            async with connected(server) as client:
                tips = await tips_of_a_call(client, 12)
                used = [str(request.body["model"]) for request in fake.requests]
                spoken = [tip["source"] for tip in tips]
                assert used[0] == "gpt-6-sol" and set(used[1:]) == {"gpt-6-luna"}
                assert spoken == ["openai"] * len(used) + ["offline"] * (12 - len(used))
                assert [tip["degraded"] for tip in tips] == [tip == "offline" for tip in spoken]
                usage = client.told("CONVERSATION_ENDED")[0]["usage"]
                assert usage["modelCalls"] == len(used) < 12
                assert usage["costMicroUsd"] < 3 * cost
                assert client.told("ERROR") == []
                fresh = await tips_of_a_call(client, 1)
                assert fresh[0]["source"] == "openai", "the cap of one call is not that of the next"
            _, figures = await server.get("/metrics")
            assert 'coach_model_calls_total{model="gpt-6-sol"}' in figures
            assert f'coach_model_calls_total{{model="gpt-6-luna"}} {len(used) - 1}.0' in figures
            assert 'coach_model_cost_usd_total{model="gpt-6-sol"}' in figures


async def test_the_cap_of_a_day_holds_for_all_calls_together_and_for_the_coach_on_request(
    tmp_path: Path,
) -> None:
    async with FakeOpenAI() as fake:
        model = {**MODELS, "OPENAI_BASE_URL": fake.base_url, "COST_CAP_USD_PER_CALL": 0}
        async with (
            serving(tmp_path, COST_CAP_USD_PER_DAY=0.000001, **model) as server,
            connected(server) as client,
        ):
            assert [tip["source"] for tip in await tips_of_a_call(client, 3)] == [
                "openai",
                "offline",
                "offline",
            ]
            assert [tip["source"] for tip in await tips_of_a_call(client, 1)] == ["offline"]
            asked = fake.calls
            wish = {"persona": "sales-coach", "context": PRICE}
            status, answer = await server.post("/api/ai/generate", wish)
            assert status == 200 and answer["data"]
            assert fake.calls == asked
            _, figures = await server.get("/metrics")
            assert "coach_model_cost_today_usd 0.0\n" not in figures
