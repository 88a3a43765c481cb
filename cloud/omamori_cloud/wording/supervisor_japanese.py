"""The Japanese words about a box's supervisor and its power."""

from __future__ import annotations

from omamori_protocol.vocabulary import PowerKind

from .supervisor import PowerWords, SupervisorWords

SUPERVISOR = SupervisorWords(
    title="見守り部品（スーパーバイザー）",
    lead="機器の中の小さな部品が、機器の動きと電源を見守り、機器が動けない間は通信を直接つなぎます。",
    none="この機器に見守り部品はありません（または、まだ報告がありません）",
    silent="見守り部品から応答がありません。通信は流れています。続くときはご連絡ください。",
    temperature="温度",
    celsius="{number}℃",
    hot="熱くなっています。風通しを確認してください",
    rail="内部の電圧",
    volts="{number}V",
    low="低下しています。電源アダプターを確認してください",
    wire="通信の通り道",
    through="機器を通っています",
    past="機器を通らず、直接つながっています",
    past_meaning="検査していません",
    past_time="機器を通らなかった時間",
    since_start="見守り部品の起動から",
    moves="通り道の切り替え",
    times="{number}回",
    resets="見守り部品による再起動",
    power="最後の電源のできごと",
    version="見守り部品のバージョン",
    length="{name}（{span}）",
    seconds="{number}秒",
    powers={
        PowerKind.NONE: PowerWords(
            name="電源は切れていません",
            meaning="電源は切れていませんでした。機器が止まったため、起動し直しました。続くときはご連絡ください。",
        ),
        PowerKind.COLD: PowerWords(
            name="長く切れていた電源が入りました",
            meaning="見守り部品の予備の電源も切れるほど、長く電源が切れていました。",
        ),
        PowerKind.DIP: PowerWords(name="一瞬の停電", meaning="電源が一瞬（0.3秒未満）切れました。"),
        PowerKind.SHORT_PULL: PowerWords(
            name="電源の短い抜き差し",
            meaning="電源が30秒より短く切れました。準備のできた更新があれば、このとき始まります。",
        ),
        PowerKind.LONG_PULL: PowerWords(name="長い停電", meaning="電源が30秒以上切れていました。"),
        PowerKind.BROWN_OUT: PowerWords(
            name="電圧の低下",
            meaning="電源がつながったまま、電圧が下がりました。続くときは電源アダプターの交換が必要です。ご連絡ください。",
        ),
    },
)
