"""The Japanese words about absences, and about what is wrong around a box."""

from __future__ import annotations

from omamori_cloud.liveness import OutageReason
from omamori_protocol.trouble import Trouble

from .liveness import LivenessWords, OutageWords, TroubleWords

LIVENESS = LivenessWords(
    title="連絡がとれなかった時間",
    lead="機器とクラウドの連絡が途切れた時間と、いちばん考えられる理由です。短い停電などでお知らせのメールは送りません。",
    none="連絡が途切れたことはありません",
    start="始まり",
    length="長さ",
    reason="理由",
    lasts="{span}（続いています）",
    code="番号 {code}",
    told="お知らせ済み",
    evidence={
        "goodbye": "予告: {value}",
        "quiet_s": "予告した時間: {value}秒",
        "will_after_s": "最後の連絡から切断までの時間: {value}秒",
        "service_cut_off": "同じ時間に、こちら側の受付も止まっていました",
        "gone_together": "同時に途切れた機器: {value}台",
        "boxes_there": "そのとき動いていた機器: {value}台",
        "uptime_s": "戻ったときの起動からの時間: {value}秒",
        "away_s": "機器が数えた、つながらなかった時間: {value}秒",
        "trouble": "その間に機器が示した番号: {value}",
        "last_end": "その前の終わり方: {value}",
        "power": "見守り部品から見た電源: {value}",
        "power_ms": "電源が切れていた時間: {value}ミリ秒",
    },
    outages={
        OutageReason.UNKNOWN: OutageWords(name="確認中", meaning="途切れたばかりで、まだ理由が分かりません。"),
        OutageReason.MAINTENANCE: OutageWords(name="予定の再起動", meaning="更新などのための、予告した再起動です。"),
        OutageReason.OVERDUE: OutageWords(
            name="再起動から戻らない", meaning="予告した再起動のあと、時間内に戻りませんでした。"
        ),
        OutageReason.SWITCHED_OFF: OutageWords(name="電源オフ", meaning="正しい手順で電源が切られました。"),
        OutageReason.POWER: OutageWords(name="停電", meaning="機器の電源が抜けたか、停電がありました。"),
        OutageReason.LINE: OutageWords(
            name="回線の停止", meaning="機器は動いていましたが、回線かルーターが止まっていました。"
        ),
        OutageReason.CRASH: OutageWords(
            name="自動の再起動", meaning="機器が止まったため、自動で起動し直しました。続くときはご連絡ください。"
        ),
        OutageReason.PROGRAM: OutageWords(
            name="管理プログラムの再起動", meaning="管理プログラムだけが起動し直しました。通信は止まっていません。"
        ),
        OutageReason.SERVICE: OutageWords(
            name="こちら側の障害", meaning="クラウド側に原因がありました。機器は保護を続けていました。"
        ),
        OutageReason.LINE_OR_POWER: OutageWords(
            name="回線か電源の停止",
            meaning="機器の電源とランプ、回線を確認してください。戻ると、どちらかが分かります。",
        ),
        OutageReason.DEAD: OutageWords(name="長い停止", meaning="1日以上連絡がありません。ご連絡ください。"),
    },
    troubles={
        Trouble.NO_CABLE: TroubleWords(
            title="どのケーブルもつながっていません",
            advice="LANケーブルが両側とも奥まで差さっているか、確認してください。",
        ),
        Trouble.NO_WAN_CABLE: TroubleWords(
            title="ルーター側のケーブルがつながっていません",
            advice="機器の「WAN」とルーターの間のケーブルと、ルーターの電源を確認してください。",
        ),
        Trouble.NO_LAN_CABLE: TroubleWords(
            title="社内側のケーブルがつながっていません",
            advice="機器の「LAN」と社内のハブの間のケーブルと、ハブの電源を確認してください。",
        ),
        Trouble.SWAPPED: TroubleWords(
            title="WANとLANのケーブルが逆です",
            advice="ルーターからのケーブルを「WAN」に、社内のハブからのケーブルを「LAN」に差し直してください。",
        ),
        Trouble.LOOP: TroubleWords(
            title="ケーブルが輪になっています",
            advice="ハブとハブ、またはハブと機器を結ぶケーブルのうち、余分な1本を抜いてください。",
        ),
        Trouble.NO_DHCP: TroubleWords(
            title="ルーターからIPアドレスをもらえません",
            advice="ルーターを再起動してください。固定IPアドレスの環境では、設定が必要です。ご連絡ください。",
        ),
        Trouble.NO_ROUTER: TroubleWords(
            title="ルーターの場所が分かりません",
            advice="ルーターのDHCPの設定（デフォルトゲートウェイ）を確認してください。",
        ),
        Trouble.ROUTER_SILENT: TroubleWords(
            title="ルーターが応答しません", advice="ルーターの電源を入れ直し、ケーブルを確認してください。"
        ),
        Trouble.NO_NAMES: TroubleWords(
            title="接続先の名前が調べられません", advice="ルーターのDNSの設定を確認してください。"
        ),
        Trouble.NO_INTERNET: TroubleWords(
            title="インターネットにつながりません",
            advice="ONU（モデム）とルーターの電源を入れ直し、ほかの機器がつながるか確認してください。",
        ),
        Trouble.PORTAL: TroubleWords(
            title="回線の認証画面などに通信を止められています",
            advice="パソコンで最初に出る接続の画面で手続きを済ませるか、回線の会社にご確認ください。",
        ),
        Trouble.DOUBLE_ROUTER: TroubleWords(
            title="ルーターが2台重なっているようです",
            advice="保護には影響ありません。VPNなどで困るときは、1台をブリッジにしてください。",
        ),
        Trouble.SERVICE_UNREACHABLE: TroubleWords(
            title="クラウドにつながりません", advice="しばらくお待ちください。1時間以上続くときはご連絡ください。"
        ),
        Trouble.BROKER_UNREACHABLE: TroubleWords(
            title="お知らせの受付につながりません",
            advice="社内の設定で、外への通信の一部が止められていないか確認してください。続くときはご連絡ください。",
        ),
        Trouble.BROKER_REFUSES: TroubleWords(
            title="機器の証明書が受け付けられません", advice="機器の登録を確認します。番号を添えてご連絡ください。"
        ),
        Trouble.CLAIM_REFUSED: TroubleWords(
            title="機器の登録が終わっていません", advice="番号と、機器のラベルの製造番号を添えてご連絡ください。"
        ),
        Trouble.CLOCK_WRONG: TroubleWords(
            title="機器の時刻が違っています", advice="自動で直ります。30分以上続くときはご連絡ください。"
        ),
        Trouble.NO_WIRE: TroubleWords(
            title="通信の中継に問題があります",
            advice="機器の電源を5秒抜いて、入れ直してください。続くときはご連絡ください。",
        ),
        Trouble.ENGINE_DOWN: TroubleWords(
            title="検査エンジンが動いていません",
            advice="機器の電源を5秒抜いて、入れ直してください。続くときはご連絡ください。",
        ),
        Trouble.HOT: TroubleWords(
            title="機器が熱くなっています",
            advice="風通しのよい場所に置き、まわりをふさがないでください。続くときはご連絡ください。",
        ),
    },
    unknown_trouble=TroubleWords(title="機器が番号で問題を知らせています", advice="番号を添えてご連絡ください。"),
    service_title="こちら側の状態",
    service_lead="この7日間に、クラウドが機器からの連絡を受け取れなかった時間です。その間、機器は保護を続けています。",
    service_stopped="プログラムの停止",
    service_none="受け取れなかった時間はありません",
    service_cause="理由",
    workers="受付のプログラム",
    worker="名前",
    worker_at="最後の合図",
    worker_fine="受付中",
    worker_silent="合図がありません",
)
