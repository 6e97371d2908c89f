/* What an image says of itself, in 128 bytes, made by the compiler: for C11, C++11 and later, by GCC
 * or Clang.
 *
 *   LOCKSTEP_DESCRIPTOR(
 *       "battery-companion",      product, 1 to 23 printable ASCII letters: one for the whole system
 *       "transmitter",            role, 1 to 15: what the device is for
 *       "olimex-esp32-poe-iso",   board, 1 to 31: the hardware that it runs on
 *       1, 2, 3,                  the release it is built for: 1.2.3, the last two at most 99
 *       1, 0, 0,                  the oldest firmware that it exchanges data with
 *       1, 2,                     the oldest and the newest application protocol that it speaks
 *       0,                        the anti-rollback counter of its release
 *       0);                       which layout of the application's configuration it reads
 *
 * stands once in a program, outside of every function. It defines `lockstep_descriptor`, which
 * `LockstepSetup` is given. ESP-IDF's linker script puts these bytes at offset 0x120 of the image.
 * They are those that `lockstep_proto::descriptor!` makes in Rust. A number or a length that is
 * wrong does not compile; letters that are wrong do not in C++, and in C are found at the start.
 *
 * The checksum at the end is CRC-32 of the 124 bytes before it. A C compiler has no loops for
 * constants; but each bit of each byte gives what it gives whatever the others are, so it is a sum
 * (exclusive or), with eight constants for each place that can differ.
 */
#ifndef LOCKSTEP_DESCRIPTOR_H
#define LOCKSTEP_DESCRIPTOR_H

#include <stdint.h>

#define LOCKSTEP_DESCRIPTOR_BYTES 128

#ifdef __cplusplus
extern "C" {
#endif
/* What `LOCKSTEP_DESCRIPTOR` defines. */
extern const uint8_t lockstep_descriptor[LOCKSTEP_DESCRIPTOR_BYTES];
#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
#define LOCKSTEP_ASSERT_(condition, text) static_assert(condition, text)
#define LOCKSTEP_LETTERS_(text) \
    LOCKSTEP_ASSERT_(lockstep_is_name_(text, sizeof(text) - 1), "other letters than ASCII")
constexpr bool lockstep_is_name_(const char *text, unsigned length) {
    return length == 0 || (text[0] >= ' ' && text[0] <= '~' && lockstep_is_name_(text + 1, length - 1));
}
#else
#define LOCKSTEP_ASSERT_(condition, text) _Static_assert(condition, text)
#define LOCKSTEP_LETTERS_(text) LOCKSTEP_ASSERT_(sizeof(text) > 1, "a name is empty")
#endif

/* A letter of a text, 0 behind its end. */
#define LOCKSTEP_AT_(text, i) \
    ((uint32_t)((i) < sizeof(text) ? (text)[(i) < sizeof(text) ? (i) : 0] : 0))
#define LOCKSTEP_BYTE_(number, i) (((uint32_t)(number) >> (8 * (i))) & 0xFFu)
#define LOCKSTEP_NUMBER_(major, minor, patch) \
    ((uint32_t)(major) * 10000u + (uint32_t)(minor) * 100u + (uint32_t)(patch))

#define LOCKSTEP_BYTES_2_(number) \
    (uint8_t)LOCKSTEP_BYTE_(number, 0), (uint8_t)LOCKSTEP_BYTE_(number, 1)
#define LOCKSTEP_BYTES_4_(number) \
    LOCKSTEP_BYTES_2_(number), (uint8_t)LOCKSTEP_BYTE_(number, 2), (uint8_t)LOCKSTEP_BYTE_(number, 3)
#define LOCKSTEP_TEXT_8_(text, i) \
    (uint8_t)LOCKSTEP_AT_(text, i), (uint8_t)LOCKSTEP_AT_(text, i + 1), \
    (uint8_t)LOCKSTEP_AT_(text, i + 2), (uint8_t)LOCKSTEP_AT_(text, i + 3), \
    (uint8_t)LOCKSTEP_AT_(text, i + 4), (uint8_t)LOCKSTEP_AT_(text, i + 5), \
    (uint8_t)LOCKSTEP_AT_(text, i + 6), (uint8_t)LOCKSTEP_AT_(text, i + 7)

/* What the bits of one byte give to the checksum. */
#define LOCKSTEP_BIT_(byte, bit, constant) (((((uint32_t)(byte)) >> (bit)) & 1u) * (constant))
#define LOCKSTEP_SUM_(byte, a, b, c, d, e, f, g, h) \
    (LOCKSTEP_BIT_(byte, 0, a) ^ LOCKSTEP_BIT_(byte, 1, b) ^ LOCKSTEP_BIT_(byte, 2, c) ^ \
     LOCKSTEP_BIT_(byte, 3, d) ^ LOCKSTEP_BIT_(byte, 4, e) ^ LOCKSTEP_BIT_(byte, 5, f) ^ \
     LOCKSTEP_BIT_(byte, 6, g) ^ LOCKSTEP_BIT_(byte, 7, h))

/* Made by the test `the_constants_of_the_checksum_are_right`; its first number stands for magic and
 * format. */
#define LOCKSTEP_CRC_(product, role, board, number, minimum, oldest, newest, epoch, schema) \
    (0xF6A6BBB8u \
     ^ LOCKSTEP_SUM_(oldest, \
         0x4317EE41u, 0x862FDC82u, 0xD72EBF45u, 0x752C78CBu, \
         0xEA58F196u, 0x0FC0E56Du, 0x1F81CADAu, 0x3F0395B4u) \
     ^ LOCKSTEP_SUM_(newest, \
         0x7E072B68u, 0xFC0E56D0u, 0x236DABE1u, 0x46DB57C2u, \
         0x8DB6AF84u, 0xC01C5949u, 0x5B49B4D3u, 0xB69369A6u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(number, 0), \
         0x31F8303Fu, 0x63F0607Eu, 0xC7E0C0FCu, 0x54B087B9u, \
         0xA9610F72u, 0x89B318A5u, 0xC817370Bu, 0x4B5F6857u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(number, 1), \
         0x96BED0AEu, 0xF60CA71Du, 0x3768487Bu, 0x6ED090F6u, \
         0xDDA121ECu, 0x60334599u, 0xC0668B32u, 0x5BBC1025u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(number, 2), \
         0xB778204Au, 0xB58146D5u, 0xB0738BEBu, 0xBB961197u, \
         0xAC5D256Fu, 0x83CB4C9Fu, 0xDCE79F7Fu, 0x62BE38BFu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(number, 3), \
         0xC57C717Eu, 0x5189E4BDu, 0xA313C97Au, 0x9D5694B5u, \
         0xE1DC2F2Bu, 0x18C95817u, 0x3192B02Eu, 0x6325605Cu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(minimum, 0), \
         0xC64AC0B8u, 0x57E48731u, 0xAFC90E62u, 0x84E31A85u, \
         0xD2B7334Bu, 0x7E1F60D7u, 0xFC3EC1AEu, 0x230C851Du) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(minimum, 1), \
         0x46190A3Au, 0x8C321474u, 0xC3152EA9u, 0x5D5B5B13u, \
         0xBAB6B626u, 0xAE1C6A0Du, 0x8749D25Bu, 0xD5E2A2F7u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(minimum, 2), \
         0x70B443AFu, 0xE168875Eu, 0x19A008FDu, 0x334011FAu, \
         0x668023F4u, 0xCD0047E8u, 0x41718991u, 0x82E31322u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(minimum, 3), \
         0xDEB72005u, 0x661F464Bu, 0xCC3E8C96u, 0x430C1F6Du, \
         0x86183EDAu, 0xD7417BF5u, 0x75F3F1ABu, 0xEBE7E356u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(epoch, 0), \
         0x0CBEC0EDu, 0x197D81DAu, 0x32FB03B4u, 0x65F60768u, \
         0xCBEC0ED0u, 0x4CA91BE1u, 0x995237C2u, 0xE9D569C5u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(epoch, 1), \
         0x08DBD5CBu, 0x11B7AB96u, 0x236F572Cu, 0x46DEAE58u, \
         0x8DBD5CB0u, 0xC00BBF21u, 0x5B667803u, 0xB6CCF006u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(epoch, 2), \
         0xB6E8E64Du, 0xB6A0CADBu, 0xB63093F7u, 0xB71021AFu, \
         0xB551451Fu, 0xB1D38C7Fu, 0xB8D61EBFu, 0xAADD3B3Fu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(epoch, 3), \
         0x8ECB703Fu, 0xC6E7E63Fu, 0x56BECA3Fu, 0xAD7D947Eu, \
         0x818A2EBDu, 0xD8655B3Bu, 0x6BBBB037u, 0xD777606Eu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(schema, 0), \
         0x759FC69Du, 0xEB3F8D3Au, 0x0D0E1C35u, 0x1A1C386Au, \
         0x343870D4u, 0x6870E1A8u, 0xD0E1C350u, 0x7AB280E1u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_BYTE_(schema, 1), \
         0xF56501C2u, 0x31BB05C5u, 0x63760B8Au, 0xC6EC1714u, \
         0x56A92869u, 0xAD5250D2u, 0x81D5A7E5u, 0xD8DA498Bu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 0), \
         0xDF068DC2u, 0x657C1DC5u, 0xCAF83B8Au, 0x4E817155u, \
         0x9D02E2AAu, 0xE174C315u, 0x1998806Bu, 0x333100D6u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 1), \
         0x666201ACu, 0xCCC40358u, 0x42F900F1u, 0x85F201E2u, \
         0xD0950585u, 0x7A5B0D4Bu, 0xF4B61A96u, 0x321D336Du) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 2), \
         0x643A66DAu, 0xC874CDB4u, 0x4B989D29u, 0x97313A52u, \
         0xF51372E5u, 0x3157E38Bu, 0x62AFC716u, 0xC55F8E2Cu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 3), \
         0x51CE1A19u, 0xA39C3432u, 0x9C496E25u, 0xE3E3DA0Bu, \
         0x1CB6B257u, 0x396D64AEu, 0x72DAC95Cu, 0xE5B592B8u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 4), \
         0x101A2331u, 0x20344662u, 0x40688CC4u, 0x80D11988u, \
         0xDAD33551u, 0x6ED76CE3u, 0xDDAED9C6u, 0x602CB5CDu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 5), \
         0xC0596B9Au, 0x5BC3D175u, 0xB787A2EAu, 0xB47E4395u, \
         0xB38D816Bu, 0xBC6A0497u, 0xA3A50F6Fu, 0x9C3B189Fu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 6), \
         0xE307377Fu, 0x1D7F68BFu, 0x3AFED17Eu, 0x75FDA2FCu, \
         0xEBFB45F8u, 0x0C878DB1u, 0x190F1B62u, 0x321E36C4u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 7), \
         0x643C6D88u, 0xC878DB10u, 0x4B80B061u, 0x970160C2u, \
         0xF573C7C5u, 0x319689CBu, 0x632D1396u, 0xC65A272Cu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 8), \
         0x57C54819u, 0xAF8A9032u, 0x84642625u, 0xD3B94A0Bu, \
         0x7C039257u, 0xF80724AEu, 0x2B7F4F1Du, 0x56FE9E3Au) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 9), \
         0xADFD3C74u, 0x808B7EA9u, 0xDA67FB13u, 0x6FBEF067u, \
         0xDF7DE0CEu, 0x658AC7DDu, 0xCB158FBAu, 0x4D5A1935u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 10), \
         0x9AB4326Au, 0xEE196295u, 0x0743C36Bu, 0x0E8786D6u, \
         0x1D0F0DACu, 0x3A1E1B58u, 0x743C36B0u, 0xE8786D60u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 11), \
         0x0B81DC81u, 0x1703B902u, 0x2E077204u, 0x5C0EE408u, \
         0xB81DC810u, 0xAB4A9661u, 0x8DE42A83u, 0xC0B95347u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 12), \
         0x5A03A0CFu, 0xB407419Eu, 0xB37F857Du, 0xBD8E0CBBu, \
         0xA06D1F37u, 0x9BAB382Fu, 0xEC27761Fu, 0x033FEA7Fu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 13), \
         0x067FD4FEu, 0x0CFFA9FCu, 0x19FF53F8u, 0x33FEA7F0u, \
         0x67FD4FE0u, 0xCFFA9FC0u, 0x448439C1u, 0x89087382u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 14), \
         0xC961E145u, 0x49B2C4CBu, 0x93658996u, 0xFDBA156Du, \
         0x20052C9Bu, 0x400A5936u, 0x8014B26Cu, 0xDB586299u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 15), \
         0x6DC1C373u, 0xDB8386E6u, 0x6C760B8Du, 0xD8EC171Au, \
         0x6AA92875u, 0xD55250EAu, 0x71D5A795u, 0xE3AB4F2Au) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 16), \
         0x1C279815u, 0x384F302Au, 0x709E6054u, 0xE13CC0A8u, \
         0x19088711u, 0x32110E22u, 0x64221C44u, 0xC8443888u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 17), \
         0x4BF97751u, 0x97F2EEA2u, 0xF494DB05u, 0x3258B04Bu, \
         0x64B16096u, 0xC962C12Cu, 0x49B48419u, 0x93690832u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 18), \
         0xFDA31625u, 0x20372A0Bu, 0x406E5416u, 0x80DCA82Cu, \
         0xDAC85619u, 0x6EE1AA73u, 0xDDC354E6u, 0x60F7AF8Du) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 19), \
         0xC1EF5F1Au, 0x58AFB875u, 0xB15F70EAu, 0xB9CFE795u, \
         0xA8EEC96Bu, 0x8AAC9497u, 0xCE282F6Fu, 0x4721589Fu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 20), \
         0x8E42B13Eu, 0xC7F4643Du, 0x5499CE3Bu, 0xA9339C76u, \
         0x89163EADu, 0xC95D7B1Bu, 0x49CBF077u, 0x9397E0EEu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 21), \
         0xFC5EC79Du, 0x23CC897Bu, 0x479912F6u, 0x8F3225ECu, \
         0xC5154D99u, 0x515B9D73u, 0xA2B73AE6u, 0x9E1F738Du) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(product, 22), \
         0xE74FE15Bu, 0x15EEC4F7u, 0x2BDD89EEu, 0x57BB13DCu, \
         0xAF7627B8u, 0x859D4931u, 0xD04B9423u, 0x7BE62E07u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 0), \
         0xAE0B5394u, 0x8767A169u, 0xD5BE4493u, 0x700D8F67u, \
         0xE01B1ECEu, 0x1B473BDDu, 0x368E77BAu, 0x6D1CEF74u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 1), \
         0xDA39DEE8u, 0x6F02BB91u, 0xDE057722u, 0x677BE805u, \
         0xCEF7D00Au, 0x469EA655u, 0x8D3D4CAAu, 0xC10B9F15u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 2), \
         0x5966386Bu, 0xB2CC70D6u, 0xBEE9E7EDu, 0xA6A2C99Bu, \
         0x96349577u, 0xF7182CAFu, 0x35415F1Fu, 0x6A82BE3Eu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 3), \
         0xD5057C7Cu, 0x717BFEB9u, 0xE2F7FD72u, 0x1E9EFCA5u, \
         0x3D3DF94Au, 0x7A7BF294u, 0xF4F7E528u, 0x329ECC11u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 4), \
         0x653D9822u, 0xCA7B3044u, 0x4F8766C9u, 0x9F0ECD92u, \
         0xE56C9D65u, 0x11A83C8Bu, 0x23507916u, 0x46A0F22Cu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 5), \
         0x8D41E458u, 0xC1F2CEF1u, 0x58949BA3u, 0xB1293746u, \
         0xB92368CDu, 0xA937D7DBu, 0x891EA9F7u, 0xC94C55AFu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 6), \
         0x49E9AD1Fu, 0x93D35A3Eu, 0xFCD7B23Du, 0x22DE623Bu, \
         0x45BCC476u, 0x8B7988ECu, 0xCD821799u, 0x40752973u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 7), \
         0x80EA52E6u, 0xDAA5A38Du, 0x6E3A415Bu, 0xDC7482B6u, \
         0x6398032Du, 0xC730065Au, 0x55110AF5u, 0xAA2215EAu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 8), \
         0x8F352D95u, 0xC51B5D6Bu, 0x5147BC97u, 0xA28F792Eu, \
         0x9E6FF41Du, 0xE7AEEE7Bu, 0x142CDAB7u, 0x2859B56Eu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 9), \
         0x50B36ADCu, 0xA166D5B8u, 0x99BCAD31u, 0xE8085C23u, \
         0x0B61BE07u, 0x16C37C0Eu, 0x2D86F81Cu, 0x5B0DF038u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 10), \
         0xB61BE070u, 0xB746C6A1u, 0xB5FC8B03u, 0xB0881047u, \
         0xBA6126CFu, 0xAFB34BDFu, 0x841791FFu, 0xD35E25BFu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 11), \
         0x7DCD4D3Fu, 0xFB9A9A7Eu, 0x2C4432BDu, 0x5888657Au, \
         0xB110CAF4u, 0xB95093A9u, 0xA9D02113u, 0x88D14467u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 12), \
         0xCAD38E8Fu, 0x4ED61B5Fu, 0x9DAC36BEu, 0xE0296B3Du, \
         0x1B23D03Bu, 0x3647A076u, 0x6C8F40ECu, 0xD91E81D8u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 13), \
         0x694C05F1u, 0xD2980BE2u, 0x7E411185u, 0xFC82230Au, \
         0x22754055u, 0x44EA80AAu, 0x89D50154u, 0xC8DB04E9u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(role, 14), \
         0x4AC70F93u, 0x958E1F26u, 0xF06D380Du, 0x3BAB765Bu, \
         0x7756ECB6u, 0xEEADD96Cu, 0x062AB499u, 0x0C556932u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 0), \
         0x1D9513D7u, 0x3B2A27AEu, 0x76544F5Cu, 0xECA89EB8u, \
         0x02203B31u, 0x04407662u, 0x0880ECC4u, 0x1101D988u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 1), \
         0x2203B310u, 0x44076620u, 0x880ECC40u, 0xCB6C9EC1u, \
         0x4DA83BC3u, 0x9B507786u, 0xEDD1E94Du, 0x00D2D4DBu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 2), \
         0x01A5A9B6u, 0x034B536Cu, 0x0696A6D8u, 0x0D2D4DB0u, \
         0x1A5A9B60u, 0x34B536C0u, 0x696A6D80u, 0xD2D4DB00u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 3), \
         0x7ED8B041u, 0xFDB16082u, 0x2013C745u, 0x40278E8Au, \
         0x804F1D14u, 0xDBEF3C69u, 0x6CAF7E93u, 0xD95EFD26u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 4), \
         0x69CCFC0Du, 0xD399F81Au, 0x7C42F675u, 0xF885ECEAu, \
         0x2A7ADF95u, 0x54F5BF2Au, 0xA9EB7E54u, 0x88A7FAE9u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 5), \
         0xCA3EF393u, 0x4F0CE167u, 0x9E19C2CEu, 0xE74283DDu, \
         0x15F401FBu, 0x2BE803F6u, 0x57D007ECu, 0xAFA00FD8u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 6), \
         0x843119F1u, 0xD31335A3u, 0x7D576D07u, 0xFAAEDA0Eu, \
         0x2E2CB25Du, 0x5C5964BAu, 0xB8B2C974u, 0xAA1494A9u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 7), \
         0x8F582F13u, 0xC5C15867u, 0x50F3B68Fu, 0xA1E76D1Eu, \
         0x98BFDC7Du, 0xEA0EBEBBu, 0x0F6C7B37u, 0x1ED8F66Eu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 8), \
         0x3DB1ECDCu, 0x7B63D9B8u, 0xF6C7B370u, 0x36FE60A1u, \
         0x6DFCC142u, 0xDBF98284u, 0x6C820349u, 0xD9040692u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 9), \
         0x69790B65u, 0xD2F216CAu, 0x7E952BD5u, 0xFD2A57AAu, \
         0x2125A915u, 0x424B522Au, 0x8496A454u, 0xD25C4EE9u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 10), \
         0x7FC99B93u, 0xFF933726u, 0x2457680Du, 0x48AED01Au, \
         0x915DA034u, 0xF9CA4629u, 0x28E58A13u, 0x51CB1426u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 11), \
         0xA396284Cu, 0x9C5D56D9u, 0xE3CBABF3u, 0x1CE651A7u, \
         0x39CCA34Eu, 0x7399469Cu, 0xE7328D38u, 0x15141C31u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 12), \
         0x2A283862u, 0x545070C4u, 0xA8A0E188u, 0x8A30C551u, \
         0xCF108CE3u, 0x45501F87u, 0x8AA03F0Eu, 0xCE31785Du) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 13), \
         0x4713F6FBu, 0x8E27EDF6u, 0xC73EDDADu, 0x550CBD1Bu, \
         0xAA197A36u, 0x8F43F22Du, 0xC5F6E21Bu, 0x509CC277u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 14), \
         0xA13984EEu, 0x99020F9Du, 0xE975197Bu, 0x099B34B7u, \
         0x1336696Eu, 0x266CD2DCu, 0x4CD9A5B8u, 0x99B34B70u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 15), \
         0xE81790A1u, 0x0B5E2703u, 0x16BC4E06u, 0x2D789C0Cu, \
         0x5AF13818u, 0xB5E27030u, 0xB0B5E621u, 0xBA1ACA03u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 16), \
         0xAF449247u, 0x85F822CFu, 0xD08143DFu, 0x7A7381FFu, \
         0xF4E703FEu, 0x32BF01BDu, 0x657E037Au, 0xCAFC06F4u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 17), \
         0x4E890BA9u, 0x9D121752u, 0xE15528E5u, 0x19DB578Bu, \
         0x33B6AF16u, 0x676D5E2Cu, 0xCEDABC58u, 0x46C47EF1u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 18), \
         0x8D88FDE2u, 0xC060FD85u, 0x5BB0FD4Bu, 0xB761FA96u, \
         0xB5B2F36Du, 0xB014E09Bu, 0xBB58C777u, 0xADC088AFu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 19), \
         0x80F0171Fu, 0xDA91287Fu, 0x6E5356BFu, 0xDCA6AD7Eu, \
         0x623C5CBDu, 0xC478B97Au, 0x538074B5u, 0xA700E96Au) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 20), \
         0x9570D495u, 0xF190AF6Bu, 0x38505897u, 0x70A0B12Eu, \
         0xE141625Cu, 0x19F3C2F9u, 0x33E785F2u, 0x67CF0BE4u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 21), \
         0xCF9E17C8u, 0x444D29D1u, 0x889A53A2u, 0xCA45A105u, \
         0x4FFA444Bu, 0x9FF48896u, 0xE498176Du, 0x1241289Bu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 22), \
         0x24825136u, 0x4904A26Cu, 0x920944D8u, 0xFF638FF1u, \
         0x25B619A3u, 0x4B6C3346u, 0x96D8668Cu, 0xF6C1CB59u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 23), \
         0x36F290F3u, 0x6DE521E6u, 0xDBCA43CCu, 0x6CE581D9u, \
         0xD9CB03B2u, 0x68E70125u, 0xD1CE024Au, 0x78ED02D5u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 24), \
         0xF1DA05AAu, 0x38C50D15u, 0x718A1A2Au, 0xE3143454u, \
         0x1D596EE9u, 0x3AB2DDD2u, 0x7565BBA4u, 0xEACB7748u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 25), \
         0x0EE7E8D1u, 0x1DCFD1A2u, 0x3B9FA344u, 0x773F4688u, \
         0xEE7E8D10u, 0x078C1C61u, 0x0F1838C2u, 0x1E307184u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 26), \
         0x3C60E308u, 0x78C1C610u, 0xF1838C20u, 0x38761E01u, \
         0x70EC3C02u, 0xE1D87804u, 0x18C1F649u, 0x3183EC92u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 27), \
         0x6307D924u, 0xC60FB248u, 0x576E62D1u, 0xAEDCC5A2u, \
         0x86C88D05u, 0xD6E01C4Bu, 0x76B13ED7u, 0xED627DAEu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 28), \
         0x01B5FD1Du, 0x036BFA3Au, 0x06D7F474u, 0x0DAFE8E8u, \
         0x1B5FD1D0u, 0x36BFA3A0u, 0x6D7F4740u, 0xDAFE8E80u) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 29), \
         0x6E8C1B41u, 0xDD183682u, 0x61416B45u, 0xC282D68Au, \
         0x5E74AB55u, 0xBCE956AAu, 0xA2A3AB15u, 0x9E36506Bu) \
     ^ LOCKSTEP_SUM_(LOCKSTEP_AT_(board, 30), \
         0xE71DA697u, 0x154A4B6Fu, 0x2A9496DEu, 0x55292DBCu, \
         0xAA525B78u, 0x8FD5B0B1u, 0xC4DA6723u, 0x52C5C807u))
/* The end of what the test has made. */

#define LOCKSTEP_DESCRIPTOR(product, role, board, major, minor, patch, min_major, min_minor, \
                            min_patch, oldest, newest, epoch, schema) \
    LOCKSTEP_DESCRIPTOR_OF_(product, role, board, LOCKSTEP_NUMBER_(major, minor, patch), \
                            LOCKSTEP_NUMBER_(min_major, min_minor, min_patch), oldest, newest, \
                            epoch, schema); \
    LOCKSTEP_ASSERT_((minor) <= 99 && (patch) <= 99 && (min_minor) <= 99 && (min_patch) <= 99, \
                     "minor and patch of a version are at most 99"); \
    LOCKSTEP_ASSERT_((major) < 429496 && (min_major) < 429496, "a version is too high"); \
    LOCKSTEP_ASSERT_((oldest) <= (newest), "the oldest protocol is above the newest"); \
    LOCKSTEP_ASSERT_((newest) <= 255 && (schema) <= 65535, "a number is too high"); \
    LOCKSTEP_ASSERT_(sizeof(product) > 1 && sizeof(role) > 1 && sizeof(board) > 1, \
                     "a name is empty"); \
    LOCKSTEP_ASSERT_(sizeof(product) <= 24, "the product has more than 23 letters"); \
    LOCKSTEP_ASSERT_(sizeof(role) <= 16, "the role has more than 15 letters"); \
    LOCKSTEP_ASSERT_(sizeof(board) <= 32, "the board has more than 31 letters"); \
    LOCKSTEP_LETTERS_(product); \
    LOCKSTEP_LETTERS_(role); \
    LOCKSTEP_LETTERS_(board)

#define LOCKSTEP_DESCRIPTOR_OF_(product, role, board, number, minimum, oldest, newest, epoch, schema) \
    __attribute__((used, section(".rodata_custom_desc"))) \
    const uint8_t lockstep_descriptor[LOCKSTEP_DESCRIPTOR_BYTES] = { \
        0xD6, 'L', 'o', 'c', 'k', 'S', 't', 'e', 1, (uint8_t)(oldest), (uint8_t)(newest), 0, \
        LOCKSTEP_BYTES_4_(number), LOCKSTEP_BYTES_4_(minimum), LOCKSTEP_BYTES_4_(epoch), \
        LOCKSTEP_BYTES_2_(schema), 0, 0, \
        LOCKSTEP_TEXT_8_(product, 0), LOCKSTEP_TEXT_8_(product, 8), LOCKSTEP_TEXT_8_(product, 16), \
        LOCKSTEP_TEXT_8_(role, 0), LOCKSTEP_TEXT_8_(role, 8), \
        LOCKSTEP_TEXT_8_(board, 0), LOCKSTEP_TEXT_8_(board, 8), \
        LOCKSTEP_TEXT_8_(board, 16), LOCKSTEP_TEXT_8_(board, 24), \
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
        LOCKSTEP_BYTES_4_(LOCKSTEP_CRC_(product, role, board, number, minimum, oldest, newest, \
                                        epoch, schema))}

#endif
