"""The Japanese words: polite, short, no jargon where a plain word exists."""

from __future__ import annotations

from datetime import datetime

from omamori_cloud.health import FeedProblem, Finding
from omamori_protocol.reported import PartName, PartState
from omamori_protocol.vocabulary import Action, Direction, EngineState, Function, Severity, UninspectedReason

from .catalogue import (
    AlertWords,
    BoxWords,
    Counted,
    FilterWords,
    FindingWords,
    FunctionWords,
    HeadlineWords,
    LedgerWords,
    OtherWords,
    ReasonWords,
    SettingsWords,
    TimeWords,
    Wording,
)
from .desk_japanese import EXPLAIN, MENU, REPORTS
from .firmware_japanese import FIRMWARE
from .liveness_japanese import LIVENESS
from .supervisor_japanese import SUPERVISOR

_WEEKDAYS = "月火水木金土日"


def _same(text: str) -> Counted:
    """Japanese does not change words with the number."""
    return Counted(text, text)


def _ago(seconds: int) -> str:
    if seconds < 60:
        return "1分以内"
    if seconds < 3600:
        return f"{seconds // 60}分前"
    if seconds < 86400:
        return f"{seconds // 3600}時間前"
    return f"{seconds // 86400:,}日前"


def _span(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds}秒"
    if seconds < 3600:
        return f"{seconds // 60}分{seconds % 60}秒" if seconds % 60 else f"{seconds // 60}分"
    if seconds < 86400:
        return f"{seconds // 3600}時間{seconds % 3600 // 60}分"
    return f"{seconds // 86400:,}日{seconds % 86400 // 3600}時間"


def _moment(at: datetime, now: datetime) -> str:
    clock = f"{at:%H:%M:%S}"
    if at.date() == now.date():
        return f"今日 {clock}"
    day = f"{at.month}月{at.day}日({_WEEKDAYS[at.weekday()]})"
    return f"{day} {clock}" if at.year == now.year else f"{at.year}年{day} {clock}"


JAPANESE = Wording(
    language="ja",
    functions={
        Function.VIRUS: FunctionWords(
            name="ウイルス",
            meaning="ダウンロードやメールの添付ファイルに、ウイルスとして知られているものが含まれていました。",
            advice=(
                "遮断と出ていれば、ファイルは使えない状態になっています。心当たりのないファイルは開かずに消し、"
                "その端末でウイルス対策ソフトの検査を行ってください。"
            ),
        ),
        Function.IPS: FunctionWords(
            name="侵入防止",
            meaning=("機器やソフトの弱点を突く攻撃、または乗っ取られた端末が出す通信の特徴が見つかりました。"),
            advice=(
                "「外から内へ」なら入口で止めています。宛先の端末のソフトを最新にしてください。"
                "「内から外へ」なら、その端末はすでに感染しているおそれがあります。ネットワークから外してご相談ください。"
            ),
        ),
        Function.DANGEROUS_SITE: FunctionWords(
            name="危険サイト",
            meaning="詐欺やウイルスの配布などに使われていると知られている相手への通信です。",
            advice=(
                "利用者に、どのメールやページから開いたかを確認してください。パスワードやカード番号を入力していたら、"
                "すぐに変更や利用停止の手続きをしてください。だれも操作していないのに繰り返すときは、感染を疑ってください。"
            ),
        ),
        Function.CATEGORY: FunctionWords(
            name="業務外サイト",
            meaning="ゲームやSNSなど、仕事と関係がないことの多い種類のサイトを開きました。危険という意味ではありません。",
            advice="会社のルールに照らして、必要なら利用者に声をかけてください。業務で使うサイトなら、そのままで問題ありません。",
        ),
        Function.APPLICATION: FunctionWords(
            name="アプリ",
            meaning="SNS、ファイル交換、ゲームなど、情報の持ち出しにつながりやすいアプリの通信です。",
            advice="会社で認めているアプリかどうかを確認してください。認めていないものなら、利用者に使用をやめてもらってください。",
        ),
        Function.BEHAVIOUR: FunctionWords(
            name="振る舞い検知",
            meaning="ほかの端末を次々に調べるなど、ふだんの仕事では見られない動きをしている端末があります。",
            advice="その端末をネットワークから外し、ウイルス対策ソフトで検査してください。持ち主が分からない端末なら、ご相談ください。",
        ),
        Function.FIREWALL: FunctionWords(
            name="ファイアウォール",
            meaning="形の壊れた通信や、送り主を偽った通信を見つけました。",
            advice="一度だけなら心配いりません。同じ端末で続くときは、機器の故障や設定の誤りがないか確認してください。",
        ),
    },
    unknown_function=FunctionWords(
        name="その他",
        meaning="この画面がまだ知らない種類のお知らせです。",
        advice="機器の管理者にお知らせください。",
    ),
    sentences={
        (
            Function.VIRUS,
            Direction.IN,
        ): "{peer} から {terminal} に届いたファイルに、ウイルスが見つかりました。",
        (
            Function.VIRUS,
            Direction.OUT,
        ): "{terminal} から {peer} へ出たファイルに、ウイルスが見つかりました。",
        (Function.IPS, Direction.IN): "外部の {peer} から {terminal} に、弱点を突く攻撃がありました。",
        (Function.IPS, Direction.OUT): "{terminal} から外部の {peer} へ、不正な通信が出ようとしました。",
        (
            Function.DANGEROUS_SITE,
            Direction.IN,
        ): "危険な相手 {peer} から {terminal} に、通信がありました。",
        (
            Function.DANGEROUS_SITE,
            Direction.OUT,
        ): "{terminal} が、危険な相手 {peer} につなごうとしました。",
        (Function.CATEGORY, Direction.IN): "{peer} から {terminal} に、業務と関係のなさそうな通信がありました。",
        (Function.CATEGORY, Direction.OUT): "{terminal} が、業務と関係のなさそうなサイト {peer} を開きました。",
        (Function.APPLICATION, Direction.IN): "{peer} から {terminal} に、業務外のアプリの通信がありました。",
        (Function.APPLICATION, Direction.OUT): "{terminal} が、業務外のアプリで {peer} と通信しました。",
        (Function.BEHAVIOUR, Direction.IN): "{peer} から {terminal} に、ふだんと違う動きの通信がありました。",
        (Function.BEHAVIOUR, Direction.OUT): "{terminal} が {peer} に対して、ふだんと違う動きをしました。",
        (Function.FIREWALL, Direction.IN): "{peer} から {terminal} に、正しくない通信がありました。",
        (Function.FIREWALL, Direction.OUT): "{terminal} から {peer} へ、正しくない通信がありました。",
    },
    sentence_unknown="{terminal} と {peer} の間の通信についてのお知らせです。",
    outcomes={Action.BLOCKED: "この通信は遮断しました。", Action.LOGGED: "この通信は止めずに、記録だけしました。"},
    actions={Action.BLOCKED: "遮断", Action.LOGGED: "記録"},
    directions={Direction.IN: "外から内へ", Direction.OUT: "内から外へ"},
    severities={
        Severity.ONE: FindingWords(title="参考", advice="見かけただけか、入口で止めたものです。急ぎません。"),
        Severity.TWO: FindingWords(
            title="注意",
            advice="社内の端末が危険な相手につなごうとしたか、危険なものが届いて無害化されました。その端末の利用者に確認してください。",
        ),
        Severity.THREE: FindingWords(
            title="至急",
            advice=(
                "社内の端末がすでに乗っ取られている疑いがあります。LANケーブルを抜くか Wi-Fi を切って、"
                "その端末をネットワークから外し、ご相談窓口へ連絡してください。電源は切らないでください。"
            ),
        ),
    },
    engine={
        EngineState.DOWN: "停止中",
        EngineState.STARTING: "準備中",
        EngineState.INSPECTING: "検査中",
    },
    findings={
        Finding.OFFLINE: FindingWords(
            title="連絡がとれません",
            advice=(
                "機器の電源とランプ、インターネット回線を確認してください。"
                "回線だけが切れているなら、機器は手元の検知データで検査を続け、お知らせは復旧後に届きます。"
            ),
        ),
        Finding.NEVER_HEARD: FindingWords(
            title="最初の連絡を待っています",
            advice="機器をつないでから数分かかります。10分たっても変わらないときは、電源とケーブルを確認してください。",
        ),
        Finding.ENGINE_DOWN: FindingWords(
            title="検査が止まっています",
            advice="インターネットは使えますが、通信を検査できていません。自動で復旧しないときは、機器の電源を入れ直してください。",
        ),
        Finding.ENGINE_STARTING: FindingWords(
            title="検査の準備をしています",
            advice="インターネットは使えます。検査はまもなく始まります。操作は必要ありません。",
        ),
        Finding.FEED_NONE: FindingWords(
            title="検知データがまだありません",
            advice="最初の検知データを取りに行っています。操作は必要ありません。",
        ),
        Finding.FEED_REFUSED: FindingWords(
            title="新しい検知データを受け取りませんでした",
            advice="直前の検知データで守り続けています。お客様の操作は必要ありません。",
        ),
        Finding.FEED_ROLLED_BACK: FindingWords(
            title="検知データを直前の版に戻しました",
            advice="新しい版に問題があったため、直前の版で守り続けています。お客様の操作は必要ありません。",
        ),
        Finding.FEED_STALE: FindingWords(
            title="検知データが古くなっています",
            advice="手元の検知データで守り続けていますが、最新の脅威に間に合わないことがあります。続くときはご連絡ください。",
        ),
        Finding.CERTIFICATE_EXPIRING: FindingWords(
            title="機器の証明書の期限が近づいています",
            advice="ふだんは自動で更新されます。この表示が続くときはご連絡ください。",
        ),
        Finding.BYPASSED: FindingWords(
            title="一時的に検査を止めています",
            advice="指示または本体のボタンにより、すべての通信を検査せずに通しています。時間がくると自動で検査に戻ります。",
        ),
        Finding.SETTINGS_REFUSED: FindingWords(
            title="反映できなかった設定があります",
            advice="前の設定のまま動いています。理由は、この機器の詳細に表示しています。",
        ),
        Finding.TROUBLE: FindingWords(
            title="本体が番号で問題を知らせています", advice="機器が示す番号を確認し、案内に従ってください。"
        ),
        Finding.FIRMWARE_FAILED: FindingWords(
            title="ファームウェアを更新できませんでした",
            advice="今のファームウェアのまま保護を続けています。理由は、この機器の詳細に表示しています。",
        ),
        Finding.FIRMWARE_ROLLED_BACK: FindingWords(
            title="新しいファームウェアを元に戻しました",
            advice="新しいファームウェアが正しく動かなかったため、前のもので保護を続けています。理由は、この機器の詳細に表示しています。",
        ),
    },
    feed_problems={
        FeedProblem.ALTERED: "署名か中身が正しくありませんでした。書き換えられた可能性があるため、使いません。",
        FeedProblem.EXPIRED: "有効期限が切れていました。古い情報をつかまされるのを防ぐため、使いません。",
        FeedProblem.OLDER: "今より古い版でした。守りを弱められるのを防ぐため、使いません。",
        FeedProblem.OVERSIZE: "決められた大きさを超えていました。",
        FeedProblem.ENGINE: "検査エンジンの試験に合格しませんでした。",
        FeedProblem.UNREACHABLE: "配布元から受け取れませんでした。",
        FeedProblem.OTHER: "機器の点検に合格しませんでした。",
    },
    categories={
        "adult": "アダルト",
        "file-sharing": "ファイル共有",
        "gambling": "ギャンブル",
        "games": "ゲーム",
        "news": "ニュース",
        "shopping": "ショッピング",
        "sns": "SNS",
        "streaming": "動画配信",
        "webmail": "ウェブメール",
    },
    refusal_reasons={
        "malformed": "形式が正しくない",
        "oversize": "大きすぎる",
        "unknown-version": "知らない版の形式",
        "content-type": "種類の表示が違う",
        "topic": "宛先の名前が正しくない",
        "too-many-devices": "機器の数が上限を超えた",
        "unstorable": "保存できない内容",
    },
    system_events=(
        ("spool was full", "記録の置き場所がいっぱいになり、一部のお知らせが失われました"),
        ("spool was corrupt", "記録の置き場所が壊れていたため、作り直しました。未送信のお知らせは失われました"),
        ("spool could not be written", "しばらくの間、お知らせを保存できませんでした"),
        ("spool", "お知らせの置き場所に問題がありました"),
        ("engine down", "検査が止まりました（通信は流れています）"),
        ("engine stopped", "検査が止まりました（通信は流れています）"),
        ("engine up", "検査を始めました"),
        ("engine started", "検査を始めました"),
        ("boot", "機器が起動しました"),
        ("agent started", "機器が動き始めました"),
        ("alerts ", "お知らせが1日の上限を超えたため、超えた分は回数だけ数えました"),
    ),
    times=TimeWords(ago=_ago, span=_span, moment=_moment),
    headline=HeadlineWords(
        no_boxes="機器の登録を待っています",
        no_boxes_help="機器に電源とLANケーブルをつなぐと、数分でここに自動で表示されます。設定の入力はいりません。",
        all_protected="すべて守られています",
        all_protected_help=_same("{count}台の機器が、通信を見守っています。"),
        need_attention=_same("{count}台に確認が必要です"),
        ingest_trouble="機器からの知らせを受け取れていません",
        ingest_trouble_help="この画面は最後に受け取った内容です。機器は検査を続けており、お知らせは復旧後にまとめて届きます。",
        urgent=_same("★★★のお知らせが、この24時間に{count}件あります"),
        urgent_help="端末が乗っ取られている疑いがあります。下の一覧で端末のIPアドレスとMACアドレスを確かめ、ネットワークから外してください。",
    ),
    box=BoxWords(
        title="機器",
        online="オンライン",
        offline="オフライン",
        waiting="連絡待ち",
        protecting="保護中",
        attention="要確認",
        development="開発用",
        last_contact="最後の連絡",
        never="まだありません",
        firmware="ファームウェア",
        slot="{slot}面で起動",
        feed="検知データ",
        feed_version="第{serial}版",
        feed_current="使用中",
        feed_old="前の版を使用中",
        engine="検査エンジン",
        memory="メモリの空き",
        memory_free="{mib} MB",
        uninspected="未検査の時間",
        uninspected_none="なし",
        uninspected_help="起動してから、検査を通らずに通信が流れた時間です（起動直後の準備中を含みます）。",
        uptime="起動からの時間",
        unknown="不明",
        technical_reason="機器からの説明",
        more=_same("ほかに{count}台あります。"),
        spooled=_same("送信待ちのお知らせが{count}件あります。"),
    ),
    alert=AlertWords(
        title="お知らせ",
        time="時刻",
        severity="重要度",
        function="機能",
        terminal="端末",
        destination="相手先",
        direction="向き",
        action="対応",
        category="分類",
        rule="規則",
        count="回数",
        times=_same("{count}回"),
        box="機器",
        mac_unknown="MAC 不明",
        terminal_unknown="端末 不明",
        destination_unknown="相手先 不明",
        details="くわしく",
        meaning="どういう意味？",
        advice="どうすればいい？",
        clock_wrong="機器の時計がずれていたため、受信した時刻で表示しています。",
        none="お知らせはありません",
        none_help="何か見つかると、ここに自動で表示されます。",
        none_filtered="条件に合うお知らせはありません",
        older="前のお知らせを見る",
        newest="最新に戻る",
        new=_same("新しいお知らせが{count}件届きました"),
        last_day="この24時間",
        tile_blocked="遮断",
        tile_logged="記録",
        tile_urgent="至急 ★★★",
    ),
    filter=FilterWords(
        title="絞り込み",
        any="すべて",
        at_least="{stars} 以上",
        only="{stars} のみ",
        terminal="端末（IPかMACアドレス）",
        terminal_example="例 192.168.10.11",
        apply="絞り込む",
        clear="条件を消す",
        wrong="端末は、IPアドレス（例 192.168.10.11）またはMACアドレスで入力してください。条件は使われていません。",
    ),
    other=OtherWords(
        page_title="見守り画面",
        brand="お守り",
        skip="本文へ移動",
        language="表示言語",
        live="自動更新中",
        live_stopped="更新が止まっています。通信が戻ると再開します",
        as_of="{time} 現在（日本時間）",
        happenings="機器のできごと",
        happenings_none="記録はまだありません",
        happening_unnamed="機器からの連絡",
        feed_active="検知データ 第{serial}版に更新しました",
        feed_fine="検知データの更新が正常に戻りました",
        feed_refused="新しい検知データを受け取りませんでした",
        feed_rolled_back="検知データを直前の版に戻しました",
        feed_stale="検知データが古くなっています",
        guide="お知らせの見方と、することの目安",
        guide_help="★の数は急ぎ具合です。迷ったときは、端末のIPアドレスとMACアドレスを控えてご相談ください。",
        severities="★の意味",
        complement="この機器は、パソコンのウイルス対策ソフトを補うもので、代わりになるものではありません。両方をお使いください。",
        no_guarantee="未知のウイルス、暗号化された通信、パスワード付きのファイルなどは検知できません。すべての被害を防ぐことを保証するものではありません。",
        refusals="受け付けなかったメッセージ（運用者向け）",
        refusals_help="形式や大きさが決まりに合わないため、保存しなかったものです。機器の故障や不正な送信の手がかりになります。",
        refusals_count=_same("累計 {count}件"),
        refused_at="時刻",
        refused_reason="理由",
        refused_detail="内容",
        refused_device="機器",
        no_device="不明",
        error_title="表示できません",
        error_store="記録を読み出せません。しばらくしてから、もう一度開いてください。",
        error_not_found="お探しのページはありません。",
        error_back="見守り画面へ",
    ),
    ledger=LedgerWords(
        title="検査されなかった通信",
        lead=(
            "この機器は、検査ができないときも通信を止めません。その間に検査されずに通った量を、理由ごとに記録しています。"
            "終わっていない記録は、5分ごとに届きます。"
        ),
        none="検査されずに通った通信の記録はありません",
        day="この24時間",
        month="この30日間",
        nothing="なし",
        sums="理由ごとの合計",
        reason="理由",
        time="始まった時刻",
        seconds="時間",
        packets="パケット",
        size="データ量",
        sizes=("{number} バイト", "{number} KB", "{number} MB", "{number} GB"),
        link="検査されなかった通信と設定の状態",
    ),
    uninspected={
        UninspectedReason.ENGINE_DOWN: ReasonWords(
            name="検査の停止",
            meaning="検査エンジンが止まっていました。自動で起動し直します。",
        ),
        UninspectedReason.ENGINE_STARTING: ReasonWords(
            name="検査の準備中",
            meaning="起動の直後など、検査エンジンが検知データを読み込んでいる間です。",
        ),
        UninspectedReason.ENGINE_HUNG: ReasonWords(
            name="検査の応答なし",
            meaning="検査エンジンが応答しなくなったため、通信を先に通し、検査エンジンを起動し直しました。",
        ),
        UninspectedReason.OVERLOAD: ReasonWords(
            name="通信量の超過",
            meaning="検査が追いつかないほど通信が多かったため、あふれた分を検査せずに通しました。",
        ),
        UninspectedReason.COMMAND: ReasonWords(
            name="指示による一時停止",
            meaning="遠隔からの指示または本体のボタンで、検査を一時的に止めていました。",
        ),
        UninspectedReason.EXEMPT: ReasonWords(
            name="対象外の設定",
            meaning="検査の対象外に設定した端末または相手先の通信です。",
        ),
        UninspectedReason.NO_GATE: ReasonWords(
            name="検査の入口の停止",
            meaning="通信を検査に回す部分が外れていました。続くときはご連絡ください。",
        ),
        UninspectedReason.RELAY: ReasonWords(
            name="本体を通らない接続",
            meaning="本体の起動中・再起動中・電源が切れている間、本体を通さずにネットワークを直接つないでいました。",
        ),
    },
    settings=SettingsWords(
        title="設定の状態",
        lead="お届けした設定を、機器がどこまで反映したかです。反映できないときは、前の設定のまま動きます。",
        version="第{version}版の設定を使っています",
        no_version="設定はまだ届いていません（出荷時の設定で動いています）",
        reported="機器からの報告",
        none="設定についての報告はまだありません",
        refused="新しい設定を受け付けませんでした",
        refused_version="受け付けなかった版: 第{version}版",
        command="最後の指示",
        bypass="{time} まで、検査せずに通しています",
    ),
    parts={
        PartName.WIFI: "Wi-Fi",
        PartName.ADDRESS: "機器のIPアドレス",
        PartName.POLICY: "検査できないときの動作",
        PartName.EXEMPTIONS: "検査の対象外",
        PartName.FIRMWARE: "ファームウェア",
        PartName.FEED: "脅威情報の配信",
    },
    part_states={
        PartState.NONE: "設定なし",
        PartState.APPLIED: "反映済み",
        PartState.REFUSED: "拒否",
        PartState.PENDING: "待ち",
    },
    firmware=FIRMWARE,
    liveness=LIVENESS,
    supervisor=SUPERVISOR,
    menu=MENU,
    explain=EXPLAIN,
    reports=REPORTS,
)
