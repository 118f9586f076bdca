// nimbus-jose-jwt as a peer: see ../__init__.py for what comes in and goes out.

import com.nimbusds.jose.*;
import com.nimbusds.jose.crypto.*;
import com.nimbusds.jose.jwk.*;
import com.nimbusds.jose.util.Base64URL;
import com.nimbusds.jose.util.JSONObjectUtils;
import java.io.*;
import java.util.Map;

public class Peer {
    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = lines.readLine()) != null; ) {
            Map<String, Object> outcome;
            try {
                outcome = perform(JSONObjectUtils.parse(line));
            } catch (Exception | LinkageError error) {
                outcome = Map.of("lacks", String.valueOf(error.getMessage()));
            }
            System.out.println(JSONObjectUtils.toJSONString(outcome));
        }
    }

    @SuppressWarnings("unchecked")
    static Map<String, Object> perform(Map<String, Object> task) throws Exception {
        JWK key = JWK.parse((Map<String, Object>) task.get("key"));
        boolean isJws = task.get("enc") == null;
        if (task.get("message") == null) {
            return Map.of("message", isJws ? sign(task, key) : encrypt(task, key));
        }
        Payload payload = isJws ? verify(task, key) : decrypt(task, key);
        return Map.of("payload", payload.toBase64URL().toString());
    }

    static Payload payload(Map<String, Object> task) {
        return new Payload(new Base64URL((String) task.get("payload")));
    }

    static boolean isCompact(Map<String, Object> task) {
        return task.get("form").equals("compact");
    }

    static boolean isGeneral(Map<String, Object> task) {
        return task.get("form").equals("general");
    }

    static UnprotectedHeader unprotected(Map<String, Object> task) {
        return new UnprotectedHeader.Builder().keyID((String) task.get("kid")).build();
    }

    static Object sign(Map<String, Object> task, JWK key) throws Exception {
        JWSAlgorithm alg = JWSAlgorithm.parse((String) task.get("alg"));
        if (isGeneral(task)) {
            JWSObjectJSON message = new JWSObjectJSON(payload(task));
            message.sign(new JWSHeader(alg), unprotected(task), signer(key));
            return message.toGeneralJSONObject();
        }
        JWSHeader header = new JWSHeader.Builder(alg).keyID((String) task.get("kid")).build();
        if (isCompact(task)) {
            JWSObject message = new JWSObject(header, payload(task));
            message.sign(signer(key));
            return message.serialize();
        }
        JWSObjectJSON message = new JWSObjectJSON(payload(task));
        message.sign(header, signer(key));
        return message.toFlattenedJSONObject();
    }

    static JWSSigner signer(JWK key) throws Exception {
        if (key instanceof RSAKey rsa) return new RSASSASigner(rsa);
        if (key instanceof ECKey ec) return new ECDSASigner(ec);
        return new Ed25519Signer(key.toOctetKeyPair());
    }

    static JWSVerifier verifier(JWK key) throws Exception {
        if (key instanceof RSAKey rsa) return new RSASSAVerifier(rsa.toPublicJWK());
        if (key instanceof ECKey ec) return new ECDSAVerifier(ec.toPublicJWK());
        return new Ed25519Verifier(key.toOctetKeyPair().toPublicJWK());
    }

    @SuppressWarnings("unchecked")
    static Payload verify(Map<String, Object> task, JWK key) throws Exception {
        JWSVerifier verifier = verifier(key);
        Payload payload;
        boolean isValid;
        if (task.get("message") instanceof String compact) {
            JWSObject message = JWSObject.parse(compact);
            isValid = message.verify(verifier);
            payload = message.getPayload();
        } else {
            JWSObjectJSON message = JWSObjectJSON.parse((Map<String, Object>) task.get("message"));
            isValid = message.getSignatures().get(0).verify(verifier);
            payload = message.getPayload();
        }
        if (!isValid) {
            throw new JOSEException("invalid signature");
        }
        return payload;
    }

    static Object encrypt(Map<String, Object> task, JWK key) throws Exception {
        JWEHeader.Builder builder = new JWEHeader.Builder(
            JWEAlgorithm.parse((String) task.get("alg")),
            EncryptionMethod.parse((String) task.get("enc")));
        if (isGeneral(task)) {
            JWEObjectJSON message =
                new JWEObjectJSON(builder.build(), payload(task), unprotected(task), null);
            message.encrypt(encrypter(task, key));
            return message.toGeneralJSONObject();
        }
        JWEHeader header = builder.keyID((String) task.get("kid")).build();
        if (isCompact(task)) {
            JWEObject message = new JWEObject(header, payload(task));
            message.encrypt(encrypter(task, key));
            return message.serialize();
        }
        JWEObjectJSON message = new JWEObjectJSON(header, payload(task), null, null);
        message.encrypt(encrypter(task, key));
        return message.toFlattenedJSONObject();
    }

    static JWEEncrypter encrypter(Map<String, Object> task, JWK key) throws Exception {
        if (key instanceof RSAKey rsa) return new RSAEncrypter(rsa.toPublicJWK());
        if (key instanceof ECKey ec) return new ECDHEncrypter(ec.toPublicJWK());
        if (key instanceof OctetKeyPair okp) return new X25519Encrypter(okp.toPublicJWK());
        OctetSequenceKey secret = key.toOctetSequenceKey();
        return task.get("alg").equals("dir") ? new DirectEncrypter(secret) : new AESEncrypter(secret);
    }

    static JWEDecrypter decrypter(Map<String, Object> task, JWK key) throws Exception {
        if (key instanceof RSAKey rsa) return new RSADecrypter(rsa);
        if (key instanceof ECKey ec) return new ECDHDecrypter(ec);
        if (key instanceof OctetKeyPair okp) return new X25519Decrypter(okp);
        OctetSequenceKey secret = key.toOctetSequenceKey();
        return task.get("alg").equals("dir") ? new DirectDecrypter(secret) : new AESDecrypter(secret);
    }

    @SuppressWarnings("unchecked")
    static Payload decrypt(Map<String, Object> task, JWK key) throws Exception {
        JWEDecrypter decrypter = decrypter(task, key);
        if (task.get("message") instanceof String compact) {
            JWEObject message = JWEObject.parse(compact);
            message.decrypt(decrypter);
            return message.getPayload();
        }
        JWEObjectJSON message = JWEObjectJSON.parse((Map<String, Object>) task.get("message"));
        message.decrypt(decrypter);
        return message.getPayload();
    }
}
